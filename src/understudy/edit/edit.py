"""The verb: edits an inverted photo by text, by any of three methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, spelled
from understudy.diffusion.text import Text
from understudy.diffusion.words import Reading, word_places
from understudy.edit.columns import Columns, columns_of
from understudy.edit.personalised import personalised_texts, tail_places
from understudy.edit.plug_and_play import plug_and_play_steps
from understudy.edit.prompt_to_prompt import prompt_to_prompt_steps
from understudy.edit.step import EditStep
from understudy.edit.windows import EVERY, Window, places_in, word_windows
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.invert.source import SourceFeatures
from understudy.models.interface import DiffusionModel
from understudy.settings import EditSettings
from understudy.transfer.blend import Blend, latent_mask
from understudy.transfer.cross_maps import alignment
from understudy.transfer.readings import readings
from understudy.transfer.step import StochasticNoise

WITHOUT_WORDS = ("pnp", "flowedit", "flowalign")  # methods that know no single words


@dataclass(frozen=True)
class WordEdits:
    """What is said of single words.

    weights: factor on a target word's attention. windows: share of the run in which a target word
    takes the source's attention, or its start and end. blend: the subject's word in the source
    prompt and in the targets; latents change only where either is. preserve: words kept unchanged
    all the same.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    windows: Mapping[str, Window] = field(default_factory=lambda: MappingProxyType({}))
    blend: tuple[str, str] | None = None
    preserve: tuple[str, ...] = ()


def edit_steps(
    model: DiffusionModel,
    inversion: Inversion,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    settings: EditSettings | None = None,
    *,
    words: WordEdits | None = None,
    concepts: Sequence[Concept] = (),
    mask: Float[Tensor, "m 1 h w"] | None = None,
    features: SourceFeatures | None = None,
) -> Iterator[EditStep]:
    """Edit an inverted photo, a step at a time, for one or several target prompts.

    Args:
        inversion: of the photo, made by this model as it is dressed now.
        source_prompt: the prompt of the inversion.
        target_prompts: may name concepts, as in "a photo of {rex}", that are applied.
        words: what is said of single words (p2p and hiper).
        mask: of the picture's or the latents' size, 1 = may change.
        features: what earlier edits of this source kept, used and filled (p2p and hiper).

    Raises:
        InputError: the inversion does not fit the edit, or the method lacks something asked for.
        PromptError: another source prompt, a prompt over the limit, a word that is missing.
    """
    settings = settings or EditSettings.filled({}, model.name)
    if settings.method in ("flowedit", "flowalign"):
        raise InputError(f"{settings.method} needs no inversion: call edit.flow_edit_steps.")
    asked = prepared(model, source_prompt, target_prompts, settings, words=words, concepts=concepts)
    check(model, inversion, source_prompt, settings)
    if mask is not None:
        height, width = inversion.noise.shape[-2:]
        mask = latent_mask(mask, (height, width)).to(model.device)
    if settings.method == "pnp":
        return _injected(model, inversion, asked, settings, mask)
    return _reworded(model, inversion, asked, settings, mask, features)


def edit(
    model: DiffusionModel,
    inversion: Inversion,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    settings: EditSettings | None = None,
    *,
    words: WordEdits | None = None,
    concepts: Sequence[Concept] = (),
    mask: Float[Tensor, "m 1 h w"] | None = None,
    features: SourceFeatures | None = None,
) -> Float[Tensor, "k 3 h w"]:
    """The edited pictures, one a target prompt. See `edit_steps`."""
    *_, last = edit_steps(
        model,
        inversion,
        source_prompt,
        target_prompts,
        settings,
        words=words,
        concepts=concepts,
        mask=mask,
        features=features,
    )
    with torch.no_grad():
        return model.decode(last.target)


@dataclass(frozen=True)
class Prepared:
    """What an edit has to know of its prompts, before any photo is looked at.

    targets: spelled out; texts: their embeddings, learnt tails included; negative: pnp's
    unconditional embedding; columns, windows, blend: what p2p and hiper do with words.
    """

    targets: tuple[str, ...]
    texts: Text
    negative: Text | None
    columns: tuple[Columns, ...]
    windows: Float[Tensor, "steps_1 k tokens"]
    blend: Blend | None


@torch.no_grad()
def prepared(
    model: DiffusionModel,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    settings: EditSettings,
    *,
    words: WordEdits | None = None,
    concepts: Sequence[Concept] = (),
) -> Prepared:
    """Whatever can be wrong with prompts and words is found here, in no time.

    `edit_steps` calls it; call it before an inversion that takes minutes. Raises what that does.
    """
    words = words or WordEdits()
    named = (target_prompts,) if isinstance(target_prompts, str) else tuple(target_prompts)
    if settings.method in WITHOUT_WORDS and words != WordEdits():
        raise InputError(
            f"--method {settings.method} knows no single words; --reweight, --window, --blend and "
            "--preserve go with p2p and hiper. Give a --mask to keep what is outside it."
        )
    targets = tuple(spelled(target, *concepts) for target in named)
    texts = personalised_texts(model, named, concepts, tail_scale=settings.tail_scale or None)
    own = tail_places(texts, named, concepts)
    tokens = [readings(model, prompt) for prompt in (source_prompt, *targets)]
    windows = {EVERY: settings.cross_map_steps / settings.steps, **words.windows}
    injects = settings.method == "pnp"
    return Prepared(
        targets,
        texts,
        model.embed([settings.negative]) if injects and settings.negative else None,
        ()
        if settings.method in WITHOUT_WORDS
        else _columns(model, source_prompt, targets, own, settings, words),
        word_windows(targets, tokens[1:], settings.steps, windows, model.max_tokens),
        _blend((source_prompt, *targets), tokens, settings, words),
    )


def _columns(
    model: DiffusionModel,
    source: str,
    targets: Sequence[str],
    own: Sequence[range],
    settings: EditSettings,
    words: WordEdits,
) -> tuple[Columns, ...]:
    """How each target's maps are made of the source's; own: places that take nothing."""
    tokens = [readings(model, target) for target in targets]
    weights = [dict[int, float]() for _ in targets]
    for word, weight in words.weights.items():
        for known, places in zip(weights, places_in(targets, word, tokens), strict=True):
            known |= dict.fromkeys(places, weight)
    return tuple(
        columns_of(
            model,
            source,
            target,
            alignment(model, source, target),
            how=settings.alignment,
            weights=weights[n],
            own=own[n],
        )
        for n, target in enumerate(targets)
    )


def _blend(
    prompts: Sequence[str],
    tokens: Sequence[Reading],
    settings: EditSettings,
    words: WordEdits,
) -> Blend | None:
    """Where latents may differ from the source's by words; None = anywhere."""
    kept = [places_in(prompts, word, tokens) for word in words.preserve]
    if words.blend is None:
        if kept:
            raise InputError("--preserve excepts words from --blend. Give --blend too.")
        return None
    wanted = [words.blend[0], *[words.blend[1]] * (len(prompts) - 1)]
    places = [word_places(*given) for given in zip(prompts, wanted, tokens, strict=True)]
    return Blend(
        start=int(settings.blend_start * settings.steps),
        source_places=places[0],
        target_places=tuple(places[1:]),
        threshold=settings.blend_threshold,
        kept_places=tuple(tuple(chain(*each)) for each in zip(*kept, strict=True)),
        kept_threshold=settings.preserve_threshold,
    )


def _reworded(
    model: DiffusionModel,
    inversion: Inversion,
    asked: Prepared,
    settings: EditSettings,
    mask: Tensor | None,
    features: SourceFeatures | None,
) -> Iterator[EditStep]:
    """Prompt-to-prompt, and HiPer whose tail is in the texts."""
    blend = asked.blend
    if mask is not None:
        blend = Blend(0, mask=mask) if blend is None else replace(blend, mask=mask)
    steps = prompt_to_prompt_steps(
        model,
        inversion,
        asked.targets,
        asked.columns,
        asked.windows,
        range(min(settings.self_map_steps, settings.steps)),
        guidance=settings.guidance,
        map_tokens=settings.self_map_side**2,
        blend=blend,
        texts=asked.texts,
        features=features,
        stochastic=StochasticNoise(settings.eta, settings.temperature, settings.noise_seed),
    )
    return (EditStep(s.index, s.total, s.time, s.target, s.mask, s.nfe) for s in steps)


def _injected(
    model: DiffusionModel,
    inversion: Inversion,
    asked: Prepared,
    settings: EditSettings,
    mask: Tensor | None,
) -> Iterator[EditStep]:
    """Plug-and-play."""
    steps = plug_and_play_steps(
        model,
        inversion,
        asked.texts,
        steps=settings.steps,
        guidance=settings.guidance,
        map_steps=settings.self_map_steps,
        feature_steps=settings.feature_steps,
        negative=asked.negative,
        mask=mask,
    )
    return (EditStep(s.index, s.total, s.time, s.target, mask, s.nfe) for s in steps)


def check(
    model: DiffusionModel, inversion: Inversion, source_prompt: str, settings: EditSettings
) -> None:
    """Refuse an inversion that does not belong to this edit; plug-and-play needs less of it."""
    inversion.check(model, source_prompt)
    if settings.method == "pnp":
        return
    if settings.steps != inversion.steps:
        raise InputError(
            f"the photo was inverted in {inversion.steps} steps, the edit asks for "
            f"--steps {settings.steps}. Use the same number, or invert again."
        )
    if inversion.method == "null-text" and settings.guidance != inversion.guidance:
        raise InputError(
            f"the photo was inverted for guidance {inversion.guidance}, the edit asks for "
            f"--guidance {settings.guidance}. Use the same, or invert again."
        )
