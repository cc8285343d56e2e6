"""Pivotal tuning of diffusion models: first new words, then a LoRA around them.

The words are learnt as in Textual Inversion (Gal et al. 2022, arXiv:2208.01618) while the network
stands still; then they stand still, and a low-rank change of the network (Hu et al. 2021,
arXiv:2106.09685) learns what they could not say, as Roich et al. 2021 (arXiv:2106.05744) tune a
generator around the latent that they found first. diffusers' "advanced" trainers learn both at once
in the first half.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from understudy.learn.lora import low_rank
from understudy.learn.textual_inversion import new_words
from understudy.learn.trainable import Pivot, Trainable
from understudy.models.interface import DiffusionModel


@contextmanager
def words_then_low_rank(
    model: DiffusionModel,
    starts: Sequence[tuple[str, str]],
    *,
    steps: int,
    share: float,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    seed: int,
) -> Generator[Trainable]:
    """Rows of words that train in the first `steps` steps, and low-rank changes that train after.

    starts, share: see `new_words`; the others: see `low_rank`.
    """
    with (
        new_words(model, starts, share=share) as words,
        low_rank(
            model, rank=rank, alpha=alpha, targets=targets, train_text=False, seed=seed
        ) as change,
    ):
        # Class prompts do not have the words, so the base that is preserved needs no other text.
        yield Trainable(
            {**words.parameters, **change.parameters},
            words.embed,
            True,
            lambda: {**words.tensors(), **change.tensors()},
            change.base,
            words.rates,
            Pivot(frozenset(words.parameters), steps),
        )
