"""The methods of SwapBench by name: each turns a case into a picture.

A new method is one function and one line in `METHODS`. Those without a model are the controls whose
scores are known beforehand: the perfect answer, no swap at all, and cutting the toy out of a photo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, applied
from understudy.diffusion.sampler import sample_steps
from understudy.edit import edit, flow_edit_steps, instruct_steps
from understudy.edit.instruct import ReferenceModel
from understudy.errors import InputError
from understudy.evaluate import controls
from understudy.evaluate.bench import BenchCase
from understudy.evaluate.setup import Setup
from understudy.generate import generate
from understudy.invert import Inversion, invert
from understudy.jobs.events import completed
from understudy.jobs.selecting import grown
from understudy.jobs.source import InputPicture, Inverted
from understudy.jobs.subjects import SwapSubjects
from understudy.jobs.swap import located, replaced
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection
from understudy.pictures.tensors import to_mask, to_pixels
from understudy.settings import (
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    Settings,
    SwapSettings,
)
from understudy.settings.families import flows
from understudy.settings.swap import INVERSIONS, PRESETS
from understudy.transfer.source_target import Replacement, Target

Picture = controls.Picture
EditsCase = Callable[[BenchCase, Setup | None, EditSettings], Picture]


@dataclass(frozen=True)
class Method:
    """A way to answer a case: by `make`, from the listed settings (none: it needs no model).

    needs_answer: a control that can do nothing unless the right answer is known.
    """

    make: Callable[[BenchCase, Setup | None], Picture]
    says: str
    listens: Callable[[Setup], tuple[Settings, ...]] | None = None
    needs_answer: bool = False

    def facts(self, setup: Setup | None) -> dict[str, Any]:
        """What its results depend on, for run.json."""
        if self.listens is None:
            return {}
        return on(setup).facts(*self.listens(on(setup)))


def on(setup: Setup | None) -> Setup:
    if setup is None:
        raise InputError("This method needs a model; name one with --model.")
    return setup


# Methods of the model


@torch.no_grad()
def autoencoder(case: BenchCase, setup: Setup | None) -> Picture:
    """The right answer through the autoencoder alone: the ceiling of all that edits latents.

    The source, where no right answer is known.
    """
    model, best = on(setup).model, case.known.right if case.known else case.source
    return model.decode(model.encode(best.to(model.device)))


def plain_generation(case: BenchCase, setup: Setup | None) -> Picture:
    """The target prompt drawn with the concept applied; the source is not used."""
    here, concept = on(setup), _concept(case, on(setup))
    target, how = case.target_prompt(f"{{{concept.name}}}"), here.settings(GenerateSettings)
    with applied(here.model, concept):
        return generate(here.model, [target], [case.seed], how, concepts=(concept,))


@torch.no_grad()
def ddim(case: BenchCase, setup: Setup | None) -> Picture:
    """The source inverted by DDIM and drawn again with guidance: no swap, through the model."""
    here, prompt = on(setup), case.prompt
    how = here.settings(SwapSettings)
    plain = replace(_inverting(here, how), method="ddim")
    noise = _inverted(case, here, plain).noise
    texts = here.model.embed([prompt]), here.model.embed([""])
    *_, last = sample_steps(here.model, noise, *texts, steps=how.steps, guidance=how.guidance)
    return here.model.decode(last.latents)


def photoswap(case: BenchCase, setup: Setup | None, **preset: str) -> Picture:
    """Invert the source, swap the learnt toy in (Gu et al. 2023)."""
    here, concept = on(setup), _concept(case, on(setup))
    how = here.settings(SwapSettings, **preset)
    source = InputPicture(case.prompt, case.source)
    replacement, target = Replacement(case.noun, concept.phrase), case.target_prompt(concept.phrase)
    subjects = SwapSubjects((replacement,), (concept,), target)
    source = located(here.model, source, subjects, how)
    with applied(here.model, concept):
        found = Inverted(_inverted(case, here, _inverting(here, how)))
        return completed(replaced(here.model, found, source, subjects, how, case.photos)).picture


def edited(case: BenchCase, setup: Setup | None, how: EditSettings) -> Picture:
    """Edit the source's words so that they name the learnt toy: what Photoswap is compared with.

    Prompt-to-prompt blends where either toy is looked at, as its authors do with real photos.
    """
    here, concept = on(setup), _concept(case, on(setup))
    blend = (Replacement(case.noun, concept.phrase),) if how.method == "p2p" else ()
    with applied(here.model, concept):
        inversion = _inverted(case, here, _inverting(here, how))
        target = Target(case.target_prompt(f"{{{concept.name}}}"), blend)
        return edit(here.model, inversion, target, how, concepts=(concept,))


@torch.no_grad()
def followed(
    case: BenchCase, setup: Setup | None, how: EditSettings, *, selects: bool = False
) -> Picture:
    """The source carried to the learnt toy by the difference of two velocities, without inversion
    (FlowEdit, FlowAlign). selects: only in the region of the old subject's word."""
    here, concept = on(setup), _concept(case, on(setup))
    latents = here.model.encode(case.source.to(here.model.device))
    where = _region(case, here) if selects else None
    target = Target(case.target_prompt(f"{{{concept.name}}}"), mask=where)
    with applied(here.model, concept):
        *_, last = flow_edit_steps(
            here.model, latents, case.prompt, target, how, concepts=(concept,)
        )
    return here.model.decode(last.target)


def redrawn(case: BenchCase, setup: Setup | None, how: EditSettings) -> Picture:
    """The region of the old subject's word drawn anew as the learnt toy (KV-Edit)."""
    here, concept = on(setup), _concept(case, on(setup))
    where = _region(case, here)
    with applied(here.model, concept):
        inversion = _inverted(case, here, _inverting(here, how))
        target = Target(case.target_prompt(f"{{{concept.name}}}"), mask=where)
        return edit(here.model, inversion, target, how, concepts=(concept,))


def _region(case: BenchCase, setup: Setup) -> Float[Tensor, "1 1 h w"]:
    """The mask of the old subject's word, grown as the commands grow it."""
    found = find_mask(setup.model, to_pixels(case.source), case.prompt, Selection((case.noun,)))
    return grown(to_mask(found))


@torch.no_grad()
def instructed(case: BenchCase, setup: Setup | None, *, photos: bool) -> Picture:
    """The source edited by an instruction, without inversion: the baseline of models that read
    pictures. The toy is the learnt concept, or what the photos of it show (FLUX.2)."""
    here = on(setup)
    how = here.settings(EditSettings, method="instruct")
    latents = here.model.encode(case.source.to(here.model.device))
    if photos:
        seen = [here.model.encode(one.to(here.model.device)) for one in case.photos.split(1)]
        most = here.model.references if isinstance(here.model, ReferenceModel) else 0
        seen = seen[: max(1, most - 1)]
        where = "picture 2" if len(seen) == 1 else f"pictures 2 to {len(seen) + 1}"
        says = f"replace the {case.noun} in picture 1 with the {case.class_noun} in {where}"
        *_, last = instruct_steps(here.model, latents, says, how, references=seen)
        return here.model.decode(last.target)
    concept = _concept(case, here)
    says = f"replace the {case.noun} with {{{concept.name}}}"
    with applied(here.model, concept):
        *_, last = instruct_steps(here.model, latents, says, how, concepts=(concept,))
    return here.model.decode(last.target)


def _inverted(case: BenchCase, setup: Setup, how: InvertSettings) -> Inversion:
    """The source inverted by the model with its concepts applied; made once for all methods."""
    cache = setup.store / "inversions"
    return invert(setup.model, case.source, case.prompt, how, cache=cache)


def _concept(case: BenchCase, setup: Setup) -> Concept:
    how = setup.settings(LearnSettings)
    return setup.concept(case.subject, case.class_noun, case.photos, how)


def _inverting(setup: Setup, how: SwapSettings | EditSettings) -> InvertSettings:
    """Inversion settings of the swap's or edit's length and guidance, by the method that suits a
    swap's preset unless another is told."""
    found = setup.settings(InvertSettings).to_dict()
    if isinstance(how, SwapSettings) and "method" not in setup.told.get("invert", {}):
        found["method"] = "direct" if flows(setup.model.name) else INVERSIONS[how.preset]
    return InvertSettings.from_dict({**found, "steps": how.steps, "guidance": how.guidance})


def _of_preset(preset: str) -> Method:
    def make(case: BenchCase, setup: Setup | None) -> Picture:
        return photoswap(case, setup, preset=preset)

    def listens(setup: Setup) -> tuple[Settings, ...]:
        how = setup.settings(SwapSettings, preset=preset)
        return setup.settings(LearnSettings), _inverting(setup, how), how

    return Method(make, f"Photoswap, preset {preset}", listens)


def _of_edit(
    method: str, draw: EditsCase = edited, says: str = "", *, inverts: bool = True
) -> Method:
    def settings(setup: Setup) -> EditSettings:
        """As long and guided as the swaps, so that both begin from the same inversion; a method
        that needs none has its own."""
        if not inverts:
            return setup.settings(EditSettings, method=method)
        swap = setup.settings(SwapSettings)
        return setup.settings(EditSettings, method=method, steps=swap.steps, guidance=swap.guidance)

    def make(case: BenchCase, setup: Setup | None) -> Picture:
        return draw(case, setup, settings(on(setup)))

    def listens(setup: Setup) -> tuple[Settings, ...]:
        how = settings(setup)
        return setup.settings(LearnSettings), _inverting(setup, how), how

    return Method(make, f"edit --method {method}{says}, the learnt toy named", listens)


def _of_instruction(photos: bool) -> Method:
    def listens(setup: Setup) -> tuple[Settings, ...]:
        how = setup.settings(EditSettings, method="instruct")
        return (how,) if photos else (setup.settings(LearnSettings), how)

    says = "photos of the toy as references" if photos else "the learnt toy named"
    return Method(partial(instructed, photos=photos), f"edit --method instruct, {says}", listens)


METHODS: Mapping[str, Method] = {
    "right-answer": Method(controls.right_answer, "the right answer itself", needs_answer=True),
    "no-swap": Method(controls.no_swap, "the source, untouched"),
    "copy-paste": Method(
        controls.copy_paste, "the toy cut out of a photo and pasted", needs_answer=True
    ),
    "autoencoder": Method(autoencoder, "the right answer through the autoencoder", lambda _: ()),
    "ddim": Method(
        ddim,
        "the source inverted by DDIM and drawn again, nothing swapped",
        lambda setup: (_inverting(setup, setup.settings(SwapSettings)),),
    ),
    "plain-generation": Method(
        plain_generation,
        "the target prompt, drawn without the source",
        lambda setup: (setup.settings(LearnSettings), setup.settings(GenerateSettings)),
    ),
    **{name: _of_edit(name) for name in ("p2p", "pnp")},
    **{name: _of_edit(name, followed, inverts=False) for name in ("flowedit", "flowalign")},
    "flowedit-select": _of_edit(
        "flowedit", partial(followed, selects=True), " --select NOUN", inverts=False
    ),
    "kv-edit": _of_edit("kv-edit", redrawn, " --select NOUN"),
    "instruct": _of_instruction(False),
    "instruct-photos": _of_instruction(True),
    **{f"photoswap-{preset}": _of_preset(preset) for preset in PRESETS},
}
