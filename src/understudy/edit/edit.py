"""The verb `edit`: an inverted photo is edited by text, with p2p, pnp, hiper or kv-edit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, spelled
from understudy.diffusion.text import Text
from understudy.diffusion.words import Reading, word_places
from understudy.edit.columns import Columns
from understudy.edit.flow_edit import check_flow
from understudy.edit.kv_edit import kv_edit_steps
from understudy.edit.personalised import personalised_texts, tail_places
from understudy.edit.plug_and_play import plug_and_play_steps
from understudy.edit.prompt_to_prompt import WordMaps, prompt_to_prompt_steps
from understudy.edit.step import EditStep
from understudy.edit.windows import EVERY, places_in, word_windows
from understudy.edit.words import WordEdits, target_columns
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings import EditSettings
from understudy.transfer import source_target as given
from understudy.transfer.blend import Blend, latent_mask
from understudy.transfer.readings import readings
from understudy.transfer.source_target import (
    Source,
    Target,
    mask_of,
    source_of,
    targets_of,
    with_negative,
)
from understudy.transfer.step import StochasticNoise
from understudy.transfer.texts import check_read

UNINVERTED = ("flowedit", "flowalign", "instruct")
WITHOUT_WORDS = ("pnp", "kv-edit", *UNINVERTED)  # methods without options for single words


def edit_steps(
    model: DiffusionModel,
    source: given.Sources,
    targets: given.Targets,
    settings: EditSettings | None = None,
    *,
    words: WordEdits | None = None,
    concepts: Sequence[Concept] = (),
) -> Iterator[EditStep]:
    """Edit an inverted photo, a step at a time, for one or several targets.

    Args:
        source: the photo, inverted by this model with the concepts applied. Its features are used
            by p2p and hiper.
        targets: prompts, which may name concepts, as in "a photo of {rex}". With words (p2p and
            hiper) latents change only where these are; with a mask (kv-edit needs one) inside it.
        words: options for single words (p2p and hiper).
        concepts: those that the prompts name.

    Raises:
        InputError: the inversion does not fit the edit, or an option does not fit the method.
        PromptError: a prompt that is too long, a word that is missing.
    """
    settings = settings or EditSettings.filled({}, model.name)
    source, targets = source_of(source), targets_of(targets)
    if settings.method in UNINVERTED:
        raise InputError(f"{settings.method} needs no inversion: flow_edit_steps, instruct_steps.")
    asked = prepared(model, source.prompt, targets, settings, words=words, concepts=concepts)
    check(model, source.inversion, settings)
    mask = mask_of(targets)
    if settings.method == "kv-edit":
        return kv_edit_steps(model, source.inversion, asked.texts, mask, settings)
    if mask is not None:
        height, width = source.inversion.noise.shape[-2:]
        mask = latent_mask(mask, (height, width)).to(model.device)
    if settings.method == "pnp":
        return _injected(model, source, asked, settings, mask)
    return _reworded(model, source, asked, settings, mask)


def edit(
    model: DiffusionModel,
    source: given.Sources,
    targets: given.Targets,
    settings: EditSettings | None = None,
    *,
    words: WordEdits | None = None,
    concepts: Sequence[Concept] = (),
) -> Float[Tensor, "k 3 h w"]:
    """The edited pictures, one a target. See `edit_steps`."""
    *_, last = edit_steps(model, source, targets, settings, words=words, concepts=concepts)
    with torch.no_grad():
        return model.decode(last.target)


@dataclass(frozen=True)
class Prepared:
    """What an edit needs of its prompts, checked before a photo is read.

    targets: without concept names, with embeddings and learnt tails. negative: the negative
    prompt's embedding, None for none. maps, blend: what p2p and hiper do with words.
    """

    targets: tuple[Target, ...]
    negative: Text | None
    maps: WordMaps
    blend: Blend | None

    @property
    def texts(self) -> Text:
        """The embeddings of all targets."""
        return Text.cat([target.text for target in self.targets if target.text is not None])


@torch.no_grad()
def prepared(
    model: DiffusionModel,
    source_prompt: str,
    targets: given.Targets,
    settings: EditSettings,
    *,
    words: WordEdits | None = None,
    concepts: Sequence[Concept] = (),
) -> Prepared:
    """Check prompts and words, quickly, before an inversion that takes minutes.

    `edit_steps` calls it too. Raises what that does.
    """
    words, named = words or WordEdits(), with_negative(targets, settings.negative)
    if settings.method == "kv-edit":
        check_flow(model, settings.method)
    prompts = [target.prompt for target in named]
    if settings.method in WITHOUT_WORDS and (words != WordEdits() or any(t.words for t in named)):
        raise InputError(
            f"--method {settings.method} has no options for single words; --reweight, "
            "--window, --blend and --preserve need p2p or hiper. To limit the change, use --mask."
        )
    negative = None
    if settings.negative:
        check_read(model, settings.guidance, settings.negative)
        negative = model.embed([settings.negative])
    spelt = tuple(spelled(prompt, *concepts) for prompt in prompts)
    texts = personalised_texts(model, prompts, concepts, tail_scale=settings.tail_scale or None)
    own = tail_places(texts, prompts, concepts)
    found = tuple(
        replace(target, prompt=prompt, text=texts[n] if target.text is None else target.text)
        for n, (target, prompt) in enumerate(zip(named, spelt, strict=True))
    )
    tokens = [readings(model, prompt) for prompt in (source_prompt, *spelt)]
    windows = {EVERY: settings.cross_map_steps / settings.steps, **words.windows}
    columns: tuple[Columns, ...] = ()
    if settings.method not in WITHOUT_WORDS:
        columns = target_columns(model, source_prompt, spelt, own, settings, words)
    return Prepared(
        found,
        negative,
        WordMaps(
            columns, word_windows(spelt, tokens[1:], settings.steps, windows, model.max_tokens)
        ),
        _blend(source_prompt, found, tokens, settings, words),
    )


def _blend(
    source_prompt: str,
    targets: Sequence[Target],
    tokens: Sequence[Reading],
    settings: EditSettings,
    words: WordEdits,
) -> Blend | None:
    """Where latents may differ from the source's by words; None = anywhere."""
    prompts = (source_prompt, *(target.prompt for target in targets))
    kept = [places_in(prompts, word, tokens) for word in words.preserve]
    if not any(target.words for target in targets):
        if kept:
            raise InputError(
                "--preserve excludes words from the area of --blend, so it needs --blend."
            )
        return None
    replaced = dict.fromkeys(word for target in targets for word in target.words)
    return Blend(
        start=int(settings.blend_start * settings.steps),
        source_places=_places(
            word_places(source_prompt, one.word, tokens[0], occurrence=one.occurrence)
            for one in replaced
        ),
        target_places=tuple(
            _places(word_places(target.prompt, one.phrase, own) for one in target.words)
            for target, own in zip(targets, tokens[1:], strict=True)
        ),
        threshold=settings.blend_threshold,
        kept_places=tuple(tuple(chain(*each)) for each in zip(*kept, strict=True)),
        kept_threshold=settings.preserve_threshold,
    )


def _places(found: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(chain(*found)))


def _reworded(
    model: DiffusionModel,
    source: Source,
    asked: Prepared,
    settings: EditSettings,
    mask: Tensor | None,
) -> Iterator[EditStep]:
    """Prompt-to-prompt, and HiPer, whose tail is in the targets' embeddings."""
    blend = asked.blend
    if mask is not None:
        blend = Blend(0, mask=mask) if blend is None else replace(blend, mask=mask)
    steps = prompt_to_prompt_steps(
        model,
        source,
        asked.targets,
        asked.maps,
        range(min(settings.self_map_steps, settings.steps)),
        guidance=settings.guidance,
        map_tokens=settings.self_map_side**2,
        blend=blend,
        stochastic=StochasticNoise(settings.eta, settings.temperature, settings.noise_seed),
    )
    return (EditStep(s.index, s.total, s.time, s.target, s.mask, s.nfe) for s in steps)


def _injected(
    model: DiffusionModel,
    source: Source,
    asked: Prepared,
    settings: EditSettings,
    mask: Tensor | None,
) -> Iterator[EditStep]:
    """Plug-and-play."""
    steps = plug_and_play_steps(
        model,
        source.inversion,
        asked.texts,
        steps=settings.steps,
        guidance=settings.guidance,
        map_steps=settings.self_map_steps,
        feature_steps=settings.feature_steps,
        negative=asked.negative,
        mask=mask,
    )
    return (EditStep(s.index, s.total, s.time, s.target, mask, s.nfe) for s in steps)


def check(model: DiffusionModel, inversion: Inversion, settings: EditSettings) -> None:
    """Refuse an inversion that does not belong to this edit; plug-and-play needs less of it."""
    inversion.check(model)
    settings.check_inversion(inversion)
    if settings.method != "pnp":
        inversion.check_run(settings.steps, settings.guidance, "edit")
