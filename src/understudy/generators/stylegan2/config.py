"""Configuration of a StyleGAN2 generator as a value; free of torch.

The words are those of the published construction arguments, so that a checkpoint's own arguments
are read as they are (`from_arguments`), in both layouts seen in the wild.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.errors import ModelError
from understudy.files import spec

ARCHITECTURES = ("skip", "resnet", "orig")
# Published arguments that change nothing here: training, or which of two equal kernels is used.
IGNORED = frozenset(
    "w_avg_beta fused_modconv_default fused_modconv_training channels_last activation "
    "embed_features layer_features".split()
)


_WIDTH = spec.Number(1, 8192, whole=True)
DECLARED = spec.Record(
    {},
    {
        "z_dim": _WIDTH,
        "c_dim": spec.Number(0, 65_536, whole=True),
        "w_dim": _WIDTH,
        "img_resolution": spec.Number(4, 4096, whole=True),
        "img_channels": spec.Number(1, 64, whole=True),
        "start": spec.Items(spec.Number(1, 64, whole=True), 2, 2),
        "mapping_layers": spec.Number(1, 64, whole=True),
        "mapping_lr_multiplier": spec.Number(1e-9, 1e6),
        "channel_base": spec.Number(1, 2**20, whole=True),
        "channel_max": _WIDTH,
        "architecture": spec.Text(choices=ARCHITECTURES),
        "use_noise": spec.Flag(),
        "conv_clamp": spec.Maybe(spec.Number(1e-9, 1e9)),
        "num_fp16_res": spec.Number(0, 64, whole=True),
        "resample_filter": spec.Items(spec.Number(-1e3, 1e3), 4, 4),
    },
)


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Config:
    """Sizes and choices of a generator.

    img_resolution: name of the last block, 4 * 2^k; the picture's height where `start` is 4 high.
    start: (height, width) of the learned start; the picture has start * img_resolution / 4.
    channel_base, channel_max: a block of resolution r has min(channel_base // r, channel_max).
    conv_clamp: bound of every convolution's output. num_fp16_res: how many of the highest blocks
        run in half precision where half precision is asked for (0: it does not say).
    """

    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    img_resolution: int = 512
    img_channels: int = 3
    start: tuple[int, int] = (4, 4)
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    architecture: str = "skip"
    use_noise: bool = True
    conv_clamp: float | None = None
    num_fp16_res: int = 0
    resample_filter: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)

    def __post_init__(self) -> None:
        if self.img_resolution < 4 or self.img_resolution & (self.img_resolution - 1):
            self._refuse("img_resolution", "4, 8, 16, ... (a power of two)")
        if self.architecture not in ARCHITECTURES:
            self._refuse("architecture", f"one of {', '.join(ARCHITECTURES)}")
        taps = self.resample_filter
        if len(taps) != 4 or taps != taps[::-1] or sum(taps) <= 0:
            self._refuse("resample_filter", "four taps, the same from both sides")
        if len(self.start) != 2 or not all(1 <= side <= 64 for side in self.start):
            self._refuse("start", "height and width, 1 to 64")
        least = {"c_dim": 0, "num_fp16_res": 0, "mapping_layers": 1, "channel_max": 1}
        counts = "z_dim c_dim w_dim img_channels mapping_layers channel_max num_fp16_res"
        for name in counts.split():
            if not least.get(name, 1) <= getattr(self, name) <= 65536:
                self._refuse(name, f"a number from {least.get(name, 1)} to 65536")
        if self.img_resolution > 16384 or self.channel_base // self.img_resolution < 1:
            self._refuse("channel_base", f"at least img_resolution ({self.img_resolution})")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The blocks: 4, 8, ..., img_resolution."""
        return tuple(2**power for power in range(2, self.img_resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """How many w a picture takes: two a block."""
        return 2 * len(self.resolutions)

    def channels(self, resolution: int) -> int:
        """Channels of a block."""
        return min(self.channel_base // resolution, self.channel_max)

    def size(self, resolution: int) -> tuple[int, int]:
        """(height, width) in cells of what leaves a block."""
        return self.start[0] * resolution // 4, self.start[1] * resolution // 4

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StyleGAN2Config:
        """The reverse of `to_dict`. Raises ModelError for values that are none of ours."""
        try:
            DECLARED.check(dict(values), "it")
        except spec.Unfit as problem:
            raise ModelError(f"This is not a configuration of a StyleGAN2: {problem}.") from None
        pairs = {"start", "resample_filter"}
        given: dict[str, Any] = {n: tuple(v) if n in pairs else v for n, v in values.items()}
        return cls(**given)

    @classmethod
    def from_arguments(
        cls, arguments: Mapping[str, Any], start: tuple[int, int] = (4, 4)
    ) -> StyleGAN2Config:
        """From a checkpoint's construction arguments, flat or nested; start: its const's size.

        Raises ModelError for an argument that is not known, since it might change the picture.
        """
        flat: dict[str, Any] = {n: v for n, v in arguments.items() if not n.endswith("_kwargs")}
        mapping: dict[str, Any] = dict(arguments.get("mapping_kwargs") or {})
        synthesis = {**flat, **dict(arguments.get("synthesis_kwargs") or {})}
        renamed = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
        given: dict[str, Any] = {
            **synthesis,
            **{renamed.get(name, name): v for name, v in mapping.items()},
        }
        width = given.get("w_dim", cls.w_dim)
        fixed = {"activation": "lrelu", "embed_features": width, "layer_features": width}
        for name, harmless in fixed.items():
            if given.get(name) not in (None, harmless):
                raise ModelError(f"A StyleGAN2 with {name}={given[name]!r} cannot be built here.")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(given.keys() - known - IGNORED)
        if unknown:
            raise ModelError(f"Unknown construction arguments of a StyleGAN2: {unknown}.")
        chosen = {name: given[name] for name in known & given.keys()}
        return cls.from_dict({"start": start, **chosen})

    def _refuse(self, name: str, wanted: str) -> None:
        raise ModelError(f"A StyleGAN2's {name} is {wanted}. Got {getattr(self, name)!r}.")
