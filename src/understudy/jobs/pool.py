"""Loaded models, kept for the next job. A model is used by one job at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from understudy.settings import RunSettings

if TYPE_CHECKING:
    from understudy.generators.interface import ImageGenerator
    from understudy.generators.stylegan2.generator import StyleGAN2
    from understudy.generators.stylegan3.generator import StyleGAN3
    from understudy.models.interface import DiffusionModel

Key = tuple[str, str, str]  # name, device, dtype


class Pool:
    """At most `most` loaded models and generators, least recently used first out.

    Concepts change weights while a job runs. So a model is lent to one job alone; a second job
    loads another copy, and a model whose weights are not what they were is not kept.
    """

    def __init__(self, most: int = 1) -> None:
        self.most = most
        self._idle: OrderedDict[Key, DiffusionModel | ImageGenerator] = OrderedDict()

    @contextmanager
    def model(self, run: RunSettings) -> Generator[DiffusionModel]:
        """A model for the job at hand; it goes back to the pool when the block ends."""
        from understudy.models.registry import load

        key = (run.model, run.device, run.dtype)
        model = cast("DiffusionModel | None", self._taken(key))
        if model is None:
            model = load(run.model, device=run.device, dtype=run.dtype)
        try:
            yield model
        except GeneratorExit:  # cancelled: the model is as good as after a whole job
            self._keep(key, model)
            raise
        self._keep(key, model)

    @contextmanager
    def generator(
        self, name: str, device: str, dtype: str = "float32"
    ) -> Generator[StyleGAN2 | StyleGAN3]:
        """A StyleGAN generator for the job at hand. No job changes its weights."""
        from understudy.generators.folder import load_generator

        key = (name, device, dtype)
        found = cast("StyleGAN2 | StyleGAN3 | None", self._taken(key))
        found = found or load_generator(name, device=device, dtype=dtype)
        try:
            yield found
        finally:
            self._idle[key] = found

    def _taken(self, key: Key) -> object:
        """Take a model out of the pool; None, and room for a new one, where it is not there."""
        model = self._idle.pop(key, None)
        while model is None and len(self._idle) >= self.most:
            self._idle.popitem(last=False)
        return model

    def _keep(self, key: Key, model: DiffusionModel) -> None:
        if model.fingerprint == model.base_fingerprint:
            self._idle[key] = model

    @property
    def idle(self) -> tuple[Key, ...]:
        """The models that wait for a job, least recently used first."""
        return tuple(self._idle)
