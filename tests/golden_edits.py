"""Recorded prompt-to-prompt edits as columns, windows and blends of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from golden_model import GoldenCase, GoldenModel
from golden_swaps import alignment_of, apart, with_path
from understudy.diffusion.sampler import timesteps
from understudy.diffusion.words import exact_places, replace_matrix
from understudy.edit.columns import Columns, refined, replaced
from understudy.edit.windows import word_windows
from understudy.invert.inversion import Inversion
from understudy.transfer.blend import Blend


def paired(windows: Any) -> Any:
    """What JSON writes as a list is a pair."""
    if isinstance(windows, dict):
        return {word: paired(window) for word, window in windows.items()}
    return tuple(windows) if isinstance(windows, list) else windows


@dataclass
class Recorded:
    """One recorded edit: its case, a model of its own, and what the method is given."""

    case: GoldenCase
    model: GoldenModel

    @property
    def targets(self) -> list[str]:
        return self.case.settings["targets"]

    @property
    def prompts(self) -> list[str]:
        return [self.case.settings["prompts"][0], *self.targets]

    @property
    def steps(self) -> int:
        return self.case.settings["steps"]

    def inversion(self) -> Inversion:
        """The recorded noise, and the path its source takes."""
        want = self.case.settings
        bare = Inversion(
            method="seed",
            prompt=self.prompts[0],
            model=self.model.name,
            fingerprint=self.model.fingerprint,
            guidance=want["guidance"],
            timesteps=tuple(timesteps(self.model.schedule, self.steps)),
            picture="",
            trajectory=self.case.array(f"/{want['source']}/x_T")[None],
        )
        key = (self.case.folder, want["source_final"])
        if key not in _walked:
            _walked[key] = with_path(self.model, bare)
            recorded = self.case.array("/" + want["source_final"])
            assert apart(_walked[key].path[-1], recorded) < 1e-6
        return _walked[key]

    def pieces(self, prompt: str) -> Sequence[str]:
        return self.model.tokenize(prompt).pieces

    def windows(self) -> Tensor:
        rows = word_windows(
            self.targets,
            [self.pieces(target) for target in self.targets],
            self.steps,
            paired(self.case.settings["cross_replace_steps"]),
            self.model.max_tokens,
            exact=True,
        )
        assert torch.equal(rows.long(), self.case.array("word_schedule").long())
        return rows

    def columns(self) -> list[Columns]:
        want = self.case.settings
        found = [self._column(target, want.get("prev", want["kind"])) for target in self.targets]
        return [column.weighed(self.weights()) for column in found]

    def _column(self, target: str, kind: str) -> Columns:
        pair = self.prompts[0], target
        if kind == "refine":
            aligned, n = alignment_of(self.model, pair), self.targets.index(target)
            assert list(aligned.mapper) == self.case.array("mapper")[n].tolist()
            assert list(aligned.alphas) == self.case.array("alphas")[n].tolist()
            return refined(aligned)
        pieces = [self.pieces(prompt) for prompt in pair]
        return replaced(replace_matrix(*pair, *pieces, self.model.max_tokens, drift=True))

    def weights(self) -> dict[int, float]:
        want = self.case.settings
        if "eq" not in want:
            return {}
        target, named = self.targets[0], zip(want["eq"]["words"], want["eq"]["values"], strict=True)
        found = {
            place: value
            for word, value in named
            for place in exact_places(target, word, self.pieces(target))
        }
        factor = torch.ones(self.model.max_tokens).double()
        factor[list(found)] = torch.tensor(list(found.values())).double()
        assert torch.equal(factor, self.case.array("equalizer")[0])
        return found

    def places(self, words: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
        """The places of each prompt's words (one, or a list of them) by the published rule."""
        return tuple(
            tuple(
                place
                for word in ([given] if isinstance(given, str) else given)
                for place in exact_places(prompt, word, self.pieces(prompt))
            )
            for prompt, given in zip(self.prompts, words, strict=True)
        )

    def blend(self) -> Blend | None:
        want = self.case.settings.get("blend")
        if want is None:
            return None
        stable = "threshold" in want
        start = 0 if stable else int(want.get("start_blend", 0.2) * self.steps)
        assert start == self.case.settings["blend_first_active_step_index"]
        threshold = [want["threshold"]] if stable else want["th"]
        source, *targets = self.places(want["words"])
        kept = self.places(want["substruct_words"]) if "substruct_words" in want else ()
        return Blend(start, source, tuple(targets), threshold[0], None, kept, threshold[-1])


_walked: dict[Any, Inversion] = {}


def compare(case: GoldenCase, latents: Sequence[Tensor], mask: Tensor | None) -> dict[str, float]:
    """Largest difference of targets after each step (k, c, h, w) to every recorded array."""
    errors = {"targets_final": apart(latents[-1], case.array("targets_final"))}
    for key in case.keys():
        if found := re.fullmatch(rf"{case.name}/targets_after_step_(\d+)_sub(\d)", key):
            every = int(found[2])
            ours = latents[int(found[1])][..., ::every, ::every]
            errors[key] = apart(ours, case.array("/" + key))
    if f"{case.name}/mask_last" in case.keys():
        assert mask is not None
        recorded = case.array("mask_last")[1:].double()
        every = mask.shape[-1] // recorded.shape[-1]
        errors["mask_last"] = apart(mask[:, 0, ::every, ::every].double(), recorded)
    return errors
