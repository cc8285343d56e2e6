"""Which replays of a graph are compared with the call itself, before the graph is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import ref

from torch import Tensor

from understudy.cuda_graphs.agreement import difference

LEAST = 2  # calls that are compared in any case

# A tensor and how often it was changed in place: another one, or another count, are other values.
Seen = tuple["ref[Tensor]", int]


@dataclass
class Proof:
    """What one graph has shown.

    The first two calls are compared: the second has other inputs, so memory that is not filled
    again, or that two results share, is seen. Inputs that did not change in these are watched: the
    first call in which such a one changes is compared as well.
    """

    passed: int = 0
    _proven: set[int] = field(default_factory=set[int])  # inputs with which it passed
    _changed: set[int] = field(default_factory=set[int])
    _last: list[Seen] = field(default_factory=list[Seen])
    _kept: list[tuple[Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor]])

    def is_due(self, tensors: Sequence[Tensor]) -> bool:
        """Whether a call that reads these is to be compared."""
        if self.passed >= LEAST and len(self._proven) == len(tensors):
            return False
        now = [(ref(one), 0 if one.is_inference() else one._version) for one in tensors]
        if self._last:
            # By identity: `==` of references compares the tensors' values.
            self._changed |= {
                number
                for number, ((one, count), (last, before)) in enumerate(
                    zip(now, self._last, strict=True)
                )
                if one is not last or count != before
            }
        self._last = now
        return self.passed < LEAST or not self._changed <= self._proven

    def fault(self, made: Sequence[Tensor], right: Sequence[Tensor], allowed: float) -> str:
        """Compare what a replay made with what is right: what is wrong, one line, or ""."""
        found = difference(made, right, allowed)
        if found:
            return f"a replayed CUDA graph gave {found}"
        given, copies = [one for one, _ in self._kept], [one for _, one in self._kept]
        if difference(given, copies, 0.0):
            return "a replayed CUDA graph changed what it had given before"
        return ""

    def agreed(self, made: Sequence[Tensor] = ()) -> None:
        """A call was compared and nothing was wrong. made: what must not change from now on."""
        self._kept = [] if self.passed else [(one, one.clone()) for one in made]
        self.passed += 1
        self._proven |= self._changed
