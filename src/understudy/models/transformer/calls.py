"""One call of a flow transformer, as its attention processors see it.

Z-Image passes no arguments to attention, so the call is bound to the network's processors for its
length instead of travelling along. It is bound in a context variable: two threads that use one
model do not see each other's calls.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from understudy.attention.plan import AttentionControl, AttentionPlan
from understudy.attention.site import NOWHERE, AttentionSite
from understudy.errors import ModelError

Order = Literal["image first", "text first"]


@dataclass
class Call:
    """A control, and how the tokens of this call are arranged.

    grid: cells of the image tokens. text, references: number of those tokens. order: of image and
    text in the joint sequence; references follow the image.
    """

    control: AttentionControl
    grid: tuple[int, int]
    text: int
    order: Order
    references: int = 0
    heard: list[str] = field(default_factory=list[str])

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """The plan for a layer, which counts as having asked."""
        self.heard.append(site.name)
        return self.control.plan(site)

    def placed(self, site: AttentionSite, tokens: int) -> AttentionSite:
        """The site with this call's grid and slices. tokens: length of its sequence.

        Raises ModelError where the sequence is not as long as grid, text and references say.
        """
        image, text = self.grid[0] * self.grid[1], self.text if site.kind == "joint" else 0
        if image + text + self.references != tokens:
            raise ModelError(
                f"{site.name} has {tokens} tokens; expected {image} of the image, {text} of the "
                f"text and {self.references} of references."
            )
        first = 0 if self.order == "image first" else text
        seen = slice(first, first + image)
        behind = seen.stop + self.references
        start = behind if self.order == "image first" else 0
        return replace(
            site,
            grid=self.grid,
            image=seen,
            reference=slice(seen.stop, behind) if self.references else NOWHERE,
            text=slice(start, start + text) if text else NOWHERE,
        )


class Calls:
    """The call in progress, shared by the processors of one network."""

    def __init__(self) -> None:
        self._current: ContextVar[Call | None] = ContextVar("call", default=None)

    @property
    def current(self) -> Call | None:
        """The call that the processors are in; None = no control."""
        if torch.compiler.is_compiling():  # only calls without a control are compiled
            return None
        return self._current.get()

    @contextmanager
    def during(self, call: Call | None, sites: Sequence[AttentionSite]) -> Generator[None]:
        """Bind a call. Raises ModelError at the end when a layer did not ask the control."""
        token = self._current.set(call)
        try:
            yield
        finally:
            self._current.reset(token)
        if call is None:
            return
        silent = [site.name for site in sites if site.name not in set(call.heard)]
        if silent:
            raise ModelError(
                f"{len(silent)} of {len(sites)} attention layers did not call the control; "
                f"the first is {silent[0]}. Load the model again, and leave its "
                "attention processors as they are."
            )
