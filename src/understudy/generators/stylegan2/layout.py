"""The configuration of a generator, from the tensors of a file and what the file tells besides.

Shapes tell nearly everything; what they cannot (a clamp, half precision) is taken from the file's
construction arguments where it has them. NumPy only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from understudy.errors import ModelError
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.untrusted.numpy_pickles import Array
from understudy.untrusted.unpickling import Unsafe

CHECKED = frozenset({"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"})
TOLD = ("conv_clamp", "num_fp16_res", "mapping_lr_multiplier")  # by arguments alone


def stylegan2_config(tensors: Mapping[str, Array], arguments: Mapping[str, Any]) -> StyleGAN2Config:
    """What the shapes say, checked against the arguments. Raises Unsafe where they disagree."""
    try:
        seen = _from_shapes(tensors)
        start = seen["start"]
        given = {n: v for n, v in arguments.items() if n != "square"}  # StyleGAN-Human; see start
        told = StyleGAN2Config.from_arguments(given, start) if given else None
        config = StyleGAN2Config(**seen, **{n: getattr(told, n) for n in TOLD if told})
        for name in CHECKED & given.keys():
            if given[name] != getattr(config, name):
                raise Unsafe(f"its {name} differs between its configuration and its weights")
    except (IndexError, ValueError, TypeError) as error:
        raise Unsafe("its tensors do not have the shapes of a StyleGAN2") from error
    except ModelError as error:
        raise error if isinstance(error, Unsafe) else Unsafe(str(error)) from error
    return config


def _from_shapes(tensors: Mapping[str, Array]) -> dict[str, Any]:
    """Every size that a shape tells, by the names of `StyleGAN2Config`."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise Unsafe(f"it lacks the tensor {name}")
        return tensors[name].shape

    const = shape("synthesis.b4.const")
    sizes = {int(m[1]) for name in tensors if (m := re.match(r"synthesis\.b(\d{1,5})\.", name))}
    last = max(sizes)
    if sizes != {2**power for power in range(2, last.bit_length())}:
        raise Unsafe(f"its blocks are not those of a StyleGAN2: {sorted(sizes)}")
    channels = {size: shape(f"synthesis.b{size}.conv1.weight")[0] for size in sizes}
    layers = [name for name in tensors if re.fullmatch(r"mapping\.fc\d+\.weight", name)]
    w_dim = shape("mapping.w_avg")[0]
    labels = shape("mapping.embed.weight")[1] if "mapping.embed.weight" in tensors else 0
    painted = shape(f"synthesis.b{last}.torgb.weight")[0]
    resnet = any(name.endswith(".skip.weight") for name in tensors)
    skip = "synthesis.b4.torgb.weight" in tensors
    return {
        "z_dim": shape("mapping.fc0.weight")[1] - (w_dim if labels else 0),
        "c_dim": labels,
        "w_dim": w_dim,
        "img_resolution": last,
        "img_channels": painted,
        "start": (const[1], const[2]),
        "mapping_layers": len(layers),
        "channel_base": max(size * count for size, count in channels.items()),
        "channel_max": max(channels.values()),
        "architecture": "resnet" if resnet else "skip" if skip else "orig",
        "use_noise": "synthesis.b4.conv1.noise_const" in tensors,
    }
