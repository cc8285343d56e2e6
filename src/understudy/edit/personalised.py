"""HiPer editing: learnt embeddings are appended to the prompt of the edit.

HiPer (Han et al. 2023, arXiv:2303.08767): the last n text embeddings are a learnt tail, so the
target is "the target's words, then the tail". The authors sample from noise of any seed; here it
may as well start from the photo's own noise, and attention may pass from the source as in
prompt-to-prompt, but never at the tail's places. Knows prompts and concepts; learns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, embedded
from understudy.diffusion.sampler import times_of
from understudy.diffusion.text import Text
from understudy.errors import PromptError
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel


def personalised_texts(
    model: DiffusionModel,
    prompts: Sequence[str],
    concepts: Sequence[Concept] = (),
    *,
    tail_scale: float | None = None,
) -> Text:
    """Embeddings of prompts, a learnt tail behind those that name it, as in "a sitting {rex}".

    tail_scale: factor on the tails; None = what each was learnt for (0.8 in the authors' code,
    1 in the paper). Raises PromptError for words that reach into the tail, and for a tail that no
    prompt names: it would be without effect.
    """
    for concept in concepts:
        if concept.tail is not None and not any(_names(p, concept) for p in prompts):
            raise PromptError(
                f"The concept {concept.name!r} was learnt with HiPer, but no prompt names it. "
                f"Write {{{concept.name}}} in the target instead of {concept.phrase!r}."
            )
    # One prompt a call: an embedding must not depend on its neighbours, not even by rounding.
    return Text.cat([embedded(model, [p], *concepts, tail_scale=tail_scale) for p in prompts])


def tail_places(texts: Text, prompts: Sequence[str], concepts: Sequence[Concept]) -> list[range]:
    """The places of the tails behind each prompt, the last that are read; empty without any.

    texts: of these prompts, from `personalised_texts`.
    """
    length = texts.tokens.shape[1]
    ends = [length] * len(prompts) if texts.mask is None else texts.mask.sum(1).tolist()
    counts = [
        sum(len(c.tail) for c in concepts if c.tail is not None and _names(prompt, c))
        for prompt in prompts
    ]
    return [range(int(end) - count, int(end)) for end, count in zip(ends, counts, strict=True)]


def from_noise(
    model: DiffusionModel,
    noise: Float[Tensor, "1 c h w"],
    prompt: str,
    *,
    steps: int,
) -> Inversion:
    """A source that no photo has: noise, and the prompt it is sampled with.

    What HiPer's authors edit; prompt-to-prompt edits it as a generated picture.
    """
    return Inversion(
        method="seed",
        prompt=prompt,
        model=model.name,
        fingerprint=model.fingerprint,
        guidance=1.0,
        times=times_of(model, steps, noise),
        picture="",
        trajectory=noise,
    )


def _names(prompt: str, concept: Concept) -> bool:
    return any(f"{{{name}}}" in prompt for name in concept.phrases)
