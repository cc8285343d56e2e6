"""Configuration of a StyleGAN3 generator and the geometry that follows; free of torch.

Karras et al. 2021, arXiv:2106.12423. The words are those of the published construction arguments.
Frequencies are in cycles over the picture's side, rates in samples over it, sizes in samples. A
layer's map is its rate wide, and a margin on every side, until the last two, which have none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.errors import ModelError

LARGEST = 2**20
MOST_TAPS = 128  # of one filter; published ones have up to 24
WIDEST, WIDEST_MARGIN, LARGEST_SIDE = 8192, 64, 4096
# Published arguments that change nothing here: they concern training, or say what follows anyway.
IGNORED = frozenset({"magnitude_ema_beta", "w_avg_beta", "num_ws"})


@dataclass(frozen=True)
class LayerPlan:
    """One layer: what goes in, what comes out, and how its filters are cut.

    rates and cutoffs: (of what goes in, of what comes out), likewise widths (half of a filter's
    transition band), sizes and channels. between: the rate at which the activation works.
    critical: sampled so that nothing is left above the cutoff; such a layer's filters are never
    radial. paints: turns features into colours, without activation or filters.
    """

    index: int
    paints: bool
    critical: bool
    rates: tuple[int, int]
    between: int
    cutoffs: tuple[float, float]
    widths: tuple[float, float]
    sizes: tuple[int, int]
    channels: tuple[int, int]
    taps: int
    kernel: int
    radial: bool

    @property
    def name(self) -> str:
        """The published name, like L5_148_512."""
        return f"L{self.index}_{self.sizes[1]}_{self.channels[1]}"

    @property
    def up(self) -> int:
        return self.between // self.rates[0]

    @property
    def down(self) -> int:
        return self.between // self.rates[1]

    @property
    def up_taps(self) -> int:
        """How long the filter before the activation is; 1: there is none."""
        return self.taps * self.up if self.up > 1 and not self.paints else 1

    @property
    def down_taps(self) -> int:
        """How long the filter after the activation is; 1: there is none."""
        return self.taps * self.down if self.down > 1 and not self.paints else 1

    @property
    def margin(self) -> int:
        """Samples on each side of what comes out that lie outside the picture."""
        return (self.sizes[1] - self.rates[1]) // 2

    @property
    def padding(self) -> tuple[int, int]:
        """Samples added before and behind the map at the rate between; negative ones are cut off.

        So many that the wanted size comes out, with the picture's centre in its place: a map of n
        samples with zeros between them spans n * up, its centre half a gap off the samples' own.
        """
        wanted = (self.sizes[1] - 1) * self.down + 1
        there = (self.sizes[0] + self.kernel - 1) * self.up
        total = wanted - there + self.up_taps + self.down_taps - 2
        before = (total + self.up) // 2
        return before, total - before


@dataclass(frozen=True, kw_only=True)
class StyleGAN3Config:
    """Sizes and choices of a generator. Defaults are those of config T.

    num_layers: without the one that paints. num_critical: how many of the last are critically
    sampled. first_cutoff, first_stopband: of the first layer. last_stopband_rel: of the last, over
    its cutoff. margin_size: in samples. conv_kernel: side of the convolutions (T: 3, R: 1).
    use_radial_filters: whether filters after activations are radial (R). filter_size: taps over
    the factor of resampling. lrelu_upsampling: how much above the rates the activation works.
    num_fp16_res: so many octaves below the picture's rate a layer runs in half precision, where
    that is asked for.
    """

    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    img_resolution: int = 1024
    img_channels: int = 3
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    num_fp16_res: int = 4
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float | None = 256.0

    def __post_init__(self) -> None:
        least = {"c_dim": 0, "num_fp16_res": 0, "margin_size": 0}
        counts = "z_dim c_dim w_dim img_resolution img_channels mapping_layers channel_base "
        counts += (
            "channel_max num_layers num_critical margin_size num_fp16_res filter_size conv_kernel "
        )
        counts += "lrelu_upsampling"
        for name in counts.split():
            value, low = getattr(self, name), least.get(name, 1)
            if type(value) is not int or not low <= value <= LARGEST:
                self._refuse(name, f"a whole number from {low} to {LARGEST}")
        numbers = "mapping_lr_multiplier first_cutoff first_stopband last_stopband_rel output_scale"
        for name in [*numbers.split(), *(["conv_clamp"] if self.conv_clamp is not None else [])]:
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value <= LARGEST:
                self._refuse(name, f"a number above 0, at most {LARGEST}")
        most = {name: WIDEST for name in ("z_dim", "w_dim", "channel_max")}
        most |= {"margin_size": WIDEST_MARGIN, "mapping_layers": 64, "img_channels": 64}
        for name, limit in most.items():
            if getattr(self, name) > limit:
                self._refuse(name, f"at most {limit}")
        side = self.img_resolution
        if side & (side - 1) or not 8 <= side <= LARGEST_SIDE:
            self._refuse("img_resolution", f"8, 16, 32, ... (a power of two), to {LARGEST_SIDE}")
        if type(self.use_radial_filters) is not bool:
            self._refuse("use_radial_filters", "true or false")
        if self.lrelu_upsampling not in (1, 2, 4):
            self._refuse("lrelu_upsampling", "1, 2 or 4")
        if self.filter_size % 2 or self.filter_size > 64:
            self._refuse("filter_size", "even, at most 64")
        if not self.num_critical < self.num_layers <= 64:
            self._refuse("num_layers", "above num_critical, at most 64")
        if self.conv_kernel not in (1, 3):
            self._refuse("conv_kernel", "1 or 3")
        if self.first_cutoff > side / 2:
            self._refuse("first_cutoff", "at most half the picture's side")
        if not self.first_cutoff < self.first_stopband <= side / 2 * self.last_stopband_rel:
            self._refuse("first_stopband", "above first_cutoff and below the last stopband")
        if not 1 < self.last_stopband_rel <= 16:
            self._refuse("last_stopband_rel", "above 1, at most 16")
        if any(max(one.up_taps, one.down_taps) > MOST_TAPS for one in self.layers):
            self._refuse("filter_size", f"so small that a filter has at most {MOST_TAPS} taps")

    @property
    def num_ws(self) -> int:
        """How many w a picture takes: the input's, one a layer, the last one's."""
        return self.num_layers + 2

    @property
    def cutoffs(self) -> tuple[float, ...]:
        """f_c of what leaves each layer, the input among them (section 3.2)."""
        return self._rising(self.first_cutoff, self.img_resolution / 2)

    @property
    def stopbands(self) -> tuple[float, ...]:
        """f_t: above it filters let nothing through."""
        last = self.img_resolution / 2 * self.last_stopband_rel
        return self._rising(self.first_stopband, last)

    @property
    def rates(self) -> tuple[int, ...]:
        """Samples: the power of two that holds the stopband, at most the picture's."""
        most = self.img_resolution
        return tuple(2 ** math.ceil(math.log2(min(2 * stop, most))) for stop in self.stopbands)

    @property
    def half_widths(self) -> tuple[float, ...]:
        """f_h: half the band in which a filter falls, as wide as rate or stopband allow."""
        bands = zip(self.stopbands, self.rates, self.cutoffs, strict=True)
        return tuple(max(stop, rate / 2) - cutoff for stop, rate, cutoff in bands)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the maps: rates with the margin, but for the last two."""
        wide = [rate + 2 * self.margin_size for rate in self.rates]
        return (*wide[:-2], self.img_resolution, self.img_resolution)

    @property
    def channels(self) -> tuple[int, ...]:
        """Features of the maps: as many as fit under channel_base, colours at the end."""
        room = (min(self.channel_base / 2 / cutoff, self.channel_max) for cutoff in self.cutoffs)
        return (*[round(count) for count in room][:-1], self.img_channels)

    @property
    def layers(self) -> tuple[LayerPlan, ...]:
        """The layers in order, the one that paints last."""
        return tuple(self._layer(index) for index in range(self.num_layers + 1))

    def halved(self, rate: int) -> bool:
        """Whether layers that come out at this rate run in half precision where it is wanted."""
        return rate * 2**self.num_fp16_res > self.img_resolution

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StyleGAN3Config:
        """The reverse of `to_dict`. Raises ModelError for values that are none of ours."""
        try:
            return cls(**values)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
            raise ModelError(f"This is not a configuration of a StyleGAN3: {error}.") from error

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> StyleGAN3Config:
        """From a checkpoint's construction arguments, flat or nested.

        Raises ModelError for an argument that is not known, since it might change the picture.
        """
        flat = {name: v for name, v in arguments.items() if not name.endswith("_kwargs")}
        mapping: dict[str, Any] = dict(arguments.get("mapping_kwargs") or {})
        renamed = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
        given: dict[str, Any] = {
            **flat,
            **dict(arguments.get("synthesis_kwargs") or {}),
            **{renamed.get(name, name): v for name, v in mapping.items()},
        }
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(str(name)[:40] for name in given.keys() - known - IGNORED)
        if unknown:
            raise ModelError(f"Unknown construction arguments of a StyleGAN3: {unknown}.")
        return cls.from_dict({name: given[name] for name in known & given.keys()})

    def _rising(self, first: float, last: float) -> tuple[float, ...]:
        """Geometrically from first to last, which the critical layers share."""
        steps = self.num_layers - self.num_critical
        ways = (min(index / steps, 1.0) for index in range(self.num_layers + 1))
        return tuple(first * (last / first) ** way for way in ways)

    def _layer(self, index: int) -> LayerPlan:
        def pair(values: tuple[Any, ...]) -> tuple[Any, Any]:
            return values[max(index - 1, 0)], values[index]

        paints, rates = index == self.num_layers, pair(self.rates)
        critical = index >= self.num_layers - self.num_critical
        return LayerPlan(
            index=index,
            paints=paints,
            critical=critical,
            rates=rates,
            between=max(rates) * (1 if paints else self.lrelu_upsampling),
            cutoffs=pair(self.cutoffs),
            widths=pair(self.half_widths),
            sizes=pair(self.sizes),
            channels=pair(self.channels),
            taps=self.filter_size,
            kernel=1 if paints else self.conv_kernel,
            radial=self.use_radial_filters and not critical,
        )

    def _refuse(self, name: str, wanted: str) -> None:
        raise ModelError(f"A StyleGAN3's {name} is {wanted}. Got {getattr(self, name)!r}.")
