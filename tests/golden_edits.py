"""Recorded prompt-to-prompt edits as columns, windows and blends of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import plain_ddim
from golden_model import GoldenCase, GoldenModel
from golden_swaps import alignment_of, apart, prompts_of, with_path
from understudy.diffusion.words import Alignment, exact_places, replace_matrix
from understudy.edit.columns import Columns, refined, replaced
from understudy.edit.prompt_to_prompt import WordMaps, prompt_to_prompt_steps
from understudy.edit.windows import word_windows
from understudy.invert.inversion import Inversion
from understudy.transfer.blend import Blend
from understudy.transfer.loop import SwapStep

MAP_TOKENS = 32**2  # of the authors' notebook for photos


def paired(windows: Any) -> Any:
    """What JSON writes as a list is a pair."""
    if isinstance(windows, dict):
        return {word: paired(window) for word, window in windows.items()}
    return tuple(windows) if isinstance(windows, list) else windows


def refined_steps(
    case: GoldenCase, model: GoldenModel, inversion: Inversion, how: Any
) -> list[SwapStep]:
    """Refinement of the case's two prompts, by the recorded numbers `how`; all steps, ours."""
    prompts, steps = prompts_of(case), case.settings["steps"]
    target = prompts[1]
    first, end = pair_of(how["self_replace_steps"])
    windows = paired(how["cross_replace_steps"])
    strings = [model.tokenize(target).strings]
    return list(
        prompt_to_prompt_steps(
            model,
            inversion,
            [target],
            WordMaps(
                [refined(alignment_of(model, prompts))],
                word_windows([target], strings, steps, windows, model.max_tokens, exact=True),
            ),
            range(int(first * steps), int(end * steps)),
            guidance=case.settings["guidance"],
            map_tokens=how.get("self_map_max_tokens", MAP_TOKENS),
        )
    )


def pair_of(share: float | list[float]) -> tuple[float, float]:
    """Where a window of steps begins and ends, as shares of the run."""
    first, end = share if isinstance(share, list) else (0.0, share)
    return first, end


@dataclass
class Recorded:
    """One recorded edit: its case, a model of its own, and what the method is given."""

    case: GoldenCase
    model: GoldenModel

    @property
    def targets(self) -> list[str]:
        return self.case.get("targets", default=self.prompts[1:])

    @property
    def prompts(self) -> list[str]:
        return self.case.settings["prompts"]

    @property
    def steps(self) -> int:
        return self.case.settings["steps"]

    @property
    def self_steps(self) -> range:
        """The steps that take self-attention maps."""
        first, end = pair_of(self.case.get("self_replace_steps", default=0.0))
        ours = [int(first * self.steps), int(end * self.steps)]
        return range(*self.case.get("self_step_range", default=ours))

    @property
    def map_tokens(self) -> int:
        return self.case.get("self_map_max_tokens", default=MAP_TOKENS)

    def inversion(self) -> Inversion:
        """The recorded noise, and the path its source takes."""
        want = self.case.settings
        bare = Inversion(
            method="seed",
            prompt=self.prompts[0],
            model=self.model.name,
            fingerprint=self.model.fingerprint,
            guidance=want["guidance"],
            times=plain_ddim.times(self.model.schedule, self.steps),
            picture="",
            trajectory=self.case.array(f"/{want['source']}/x_T")[None],
        )
        key = (self.case.folder, want["source"], self.steps, want["guidance"])
        if key not in _walked:
            _walked[key] = with_path(self.model, bare)
        final = f"/{want.get('source_final', '')}"
        if self.case.has(final):
            assert apart(_walked[key].path[-1], self.case.array(final)) < 1e-6
        return _walked[key]

    def strings(self, prompt: str) -> Sequence[str]:
        return self.model.tokenize(prompt).strings

    def windows(self) -> Tensor:
        rows = word_windows(
            self.targets,
            [self.strings(target) for target in self.targets],
            self.steps,
            paired(self.case.settings["cross_replace_steps"]),
            self.model.max_tokens,
            exact=True,
        )
        if self.case.has("word_schedule"):
            assert torch.equal(rows.long(), self.case.array("word_schedule").long())
        return rows

    def columns(self) -> list[Columns]:
        return [
            self._column(n, target).weighed(self.weights(n))
            for n, target in enumerate(self.targets)
        ]

    @property
    def kind(self) -> str:
        """What passes maps on: "replace", "refine", or "reweight" for place by place."""
        return self.case.get("prev", "kind")

    def aligned(self, n: int) -> Alignment:
        """Target token -> source token of target n, by the published rule of the kind."""
        length = self.model.max_tokens
        if self.kind != "refine":
            return Alignment(tuple(range(length)), (1.0,) * length)
        found = alignment_of(self.model, (self.prompts[0], self.targets[n]))
        for name in ("mapper", "alphas"):
            if self.case.has(name):
                assert list(getattr(found, name)) == self.case.array(name)[n].tolist()
        return found

    def matrix(self, n: int) -> Tensor:
        """The published matrix of replacement, slip included."""
        pair = self.prompts[0], self.targets[n]
        strings = [self.strings(prompt) for prompt in pair]
        matrix = replace_matrix(*pair, *strings, self.model.max_tokens, drift=True)
        recorded = self.case.get("replace_mapper_off_identity")
        if recorded is not None:
            off = (matrix - torch.eye(len(matrix))).nonzero().tolist()
            told = {(i, j): value for i, j, value in recorded[n]}
            assert {(i, j): matrix[i, j].item() for i, j in off} == pytest.approx(told)
        return matrix

    def _column(self, n: int, target: str) -> Columns:
        return replaced(self.matrix(n)) if self.kind == "replace" else refined(self.aligned(n))

    def weights(self, n: int) -> dict[int, float]:
        """The factors on the words of target n; the authors find them in the first target."""
        want = self.case.get("eq", default={"words": [], "values": []})
        found = {
            place: value
            for word, value in zip(want["words"], want["values"], strict=False)
            for place in exact_places(self.targets[0], word, self.strings(self.targets[0]))
        }
        if self.case.has("equalizer"):
            rows = self.case.array("equalizer")
            factor = torch.ones(self.model.max_tokens).double()
            factor[list(found)] = torch.tensor(list(found.values())).double()
            assert len(rows) > 1 or torch.equal(factor, rows[0])
            row = rows[min(n, len(rows) - 1)].tolist()
            found = {place: value for place, value in enumerate(row) if value != 1}
        return found

    def places(self, words: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
        """The places of each prompt's words (one, or a list of them) by the published rule."""
        return tuple(
            tuple(
                place
                for word in ([given] if isinstance(given, str) else given)
                for place in exact_places(prompt, word, self.strings(prompt))
            )
            for prompt, given in zip(self.prompts, words, strict=True)
        )

    def blend(self) -> Blend | None:
        want = self.case.settings.get("blend")
        if want is None:
            return None
        stable = "threshold" in want
        start = int(want.get("start_blend", 0.0 if stable else 0.2) * self.steps)
        assert self.case.get("blend_first_active_step_index", default=start) == start
        threshold = want.get("threshold" if stable else "th", 0.3)
        threshold = threshold if isinstance(threshold, list) else [threshold]
        source, *targets = self.places(want["words"])
        kept = self.places(want["substruct_words"]) if want.get("substruct_words") else ()
        return Blend(start, source, tuple(targets), threshold[0], None, kept, threshold[-1])

    def run(self, inversion: Inversion | None = None) -> list[SwapStep]:
        """All steps, ours."""
        return list(
            prompt_to_prompt_steps(
                self.model,
                inversion or self.inversion(),
                self.targets,
                WordMaps(self.columns(), self.windows()),
                self.self_steps,
                guidance=self.case.settings["guidance"],
                map_tokens=self.map_tokens,
                blend=self.blend(),
            )
        )


_walked: dict[Any, Inversion] = {}


def compare(case: GoldenCase, latents: Sequence[Tensor], mask: Tensor | None) -> dict[str, float]:
    """Largest difference of targets after each step (k, c, h, w) to every recorded array."""
    errors: dict[str, float] = {}
    for key, found in case.matching(r"targets_(?:final|after_step_(\d+))(?:_sub(\d+))?"):
        every = int(found[2] or 1)
        errors[key] = apart(latents[int(found[1] or -1)][..., ::every, ::every], case.array(key))
    if case.has("mask_last"):
        assert mask is not None
        recorded = case.array("mask_last")[1:].double()
        every = mask.shape[-1] // recorded.shape[-1]
        errors["mask_last"] = apart(mask[:, 0, ::every, ::every].double(), recorded)
    assert errors, f"{case.name} records nothing to compare"
    return errors
