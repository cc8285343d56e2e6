"""Recorded HiPer runs: the concept and the prompts they are used with."""

from __future__ import annotations

from golden_model import SCHEDULE, GoldenCase, GoldenModel


def sampled_model(case: GoldenCase) -> GoldenModel:
    """The model with the schedule that the case was sampled with."""
    told = case.get("sampling", default={})
    return case.model(**{name: told[name] for name in SCHEDULE if name in told})


def target_of(case: GoldenCase) -> str:
    return case.prompt(text="target_text", emb="target_emb")


def noun_of(case: GoldenCase) -> str:
    """A word of the target that stands for the subject; a tail changes none, so any does."""
    return target_of(case).split()[-1]


def named(case: GoldenCase) -> str:
    """The target prompt with that word said as {rex}."""
    return " ".join([*target_of(case).split()[:-1], "{rex}"])
