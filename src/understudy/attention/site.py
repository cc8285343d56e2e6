"""Where an attention layer is, and how its tokens are arranged in this call.

The adapter of a network fills this in; nobody else derives a place from a module's name or a grid
from a number of tokens. Knows numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["self", "cross", "joint"]
Block = Literal["down", "mid", "up", "double", "single", "refiner"]
NOWHERE = slice(0, 0)


def _nowhere() -> slice:
    return NOWHERE


@dataclass(frozen=True)
class AttentionSite:
    """One attention layer in one call.

    Attributes:
        name: the layer's module path, for messages.
        kind: "self" (image queries and keys), "cross" (image queries, text keys), or "joint"
            (image and text in one sequence, one softmax).
        index: place in the order of execution among all attention layers.
        block, block_index: the kind of block it belongs to, and its number among those.
        transformer: number of the transformer it belongs to, among those of all blocks of its
            kind (U-Nets), in order of execution.
        heads: number of attention heads.
        grid: height and width in cells of the image tokens; (0, 0) outside a call.
        image, text, reference: where these tokens are in the sequence of keys, and of queries
            too in a joint layer. An empty slice stands for none. Families differ in the order.
    """

    name: str
    kind: Kind
    index: int
    block: Block
    block_index: int = 0
    transformer: int = 0
    heads: int = 1
    grid: tuple[int, int] = (0, 0)
    image: slice = field(default_factory=_nowhere)
    text: slice = field(default_factory=_nowhere)
    reference: slice = field(default_factory=_nowhere)

    @property
    def cells(self) -> int:
        """Number of image queries."""
        return self.grid[0] * self.grid[1]

    @property
    def crosses(self) -> bool:
        """Whether image queries read text here."""
        return self.kind != "self"
