"""Loaded models, kept for the next job. A model is used by one job at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from understudy.settings import RunSettings

if TYPE_CHECKING:
    from understudy.models.interface import DiffusionModel

Key = tuple[str, str, str]  # name, device, dtype


class Pool:
    """At most `most` loaded models, least recently used first out.

    Concepts change weights while a job runs. So a model is lent to one job alone; a second job
    loads another copy, and a model whose weights are not what they were is not kept.
    """

    def __init__(self, most: int = 1) -> None:
        self.most = most
        self._idle: OrderedDict[Key, DiffusionModel] = OrderedDict()

    @contextmanager
    def model(self, run: RunSettings) -> Generator[DiffusionModel]:
        """A model for the job at hand; it goes back to the pool when the block ends."""
        from understudy.models.registry import load

        key = (run.model, run.device, run.dtype)
        model = self._idle.pop(key, None)
        if model is None:
            while len(self._idle) >= self.most:
                self._idle.popitem(last=False)
            model = load(run.model, device=run.device, dtype=run.dtype)
        try:
            yield model
        except GeneratorExit:  # cancelled: the model is as good as after a whole job
            self._keep(key, model)
            raise
        self._keep(key, model)

    def _keep(self, key: Key, model: DiffusionModel) -> None:
        if model.fingerprint == model.base_fingerprint:
            self._idle[key] = model

    @property
    def idle(self) -> tuple[Key, ...]:
        """The models that wait for a job, least recently used first."""
        return tuple(self._idle)
