"""The configuration of a StyleGAN3 in a file: from its construction arguments and its tensors.

Layers' names tell sizes and channels; the arguments tell the rest where the file has them, the
published defaults where not. Both are believed only if the names and the filters that follow from
them are those of the file, since filters show every frequency that a layer was cut for. NumPy only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from understudy.errors import ModelError
from understudy.generators.stylegan3.config import StyleGAN3Config
from understudy.generators.stylegan3.filters import filters
from understudy.untrusted.numpy_pickles import Array
from understudy.untrusted.unpickling import Unsafe

LAYER = re.compile(r"synthesis\.L(\d{1,2})_(\d{1,5})_(\d{1,5})\.")
CHECKED = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "num_layers", "conv_kernel")
NEAR = 1e-6  # of a filter's numbers, which are below 1, to those of its formula


def is_stylegan3(tensors: Mapping[str, Array]) -> bool:
    """Whether these are the tensors of a StyleGAN3 generator."""
    return any(name.startswith("synthesis.input.") for name in tensors)


def stylegan3_config(tensors: Mapping[str, Array], arguments: Mapping[str, Any]) -> StyleGAN3Config:
    """What tensors and arguments say together. Raises Unsafe where they disagree."""
    try:
        seen = _from_shapes(tensors)
        if arguments:
            config = StyleGAN3Config.from_arguments({**_sizes(seen), **arguments})
        else:
            config = StyleGAN3Config.from_dict(seen)
    except (IndexError, ValueError, TypeError) as error:
        raise Unsafe("its tensors do not have the shapes of a StyleGAN3") from error
    except ModelError as error:
        raise error if isinstance(error, Unsafe) else Unsafe(str(error)) from error
    for name in CHECKED:
        if getattr(config, name) != seen[name]:
            raise Unsafe(f"its {name} differs between its configuration and its weights")
    _check_layers(config, tensors)
    return config


def _sizes(seen: Mapping[str, Any]) -> dict[str, Any]:
    """What arguments may leave out, because a generator is told it from elsewhere."""
    return {name: seen[name] for name in ("c_dim", "img_resolution", "img_channels")}


def _from_shapes(tensors: Mapping[str, Array]) -> dict[str, Any]:
    """Every size that a shape or a name tells, by the names of `StyleGAN3Config`."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise Unsafe(f"it lacks the tensor {name}")
        return tensors[name].shape

    found = {m[0]: m for name in tensors if (m := LAYER.match(name))}
    layers = sorted((int(m[1]), int(m[2]), int(m[3]), name) for name, m in found.items())
    if [layer[0] for layer in layers] != list(range(len(layers))) or len(layers) < 2:
        raise Unsafe("its layers are not those of a StyleGAN3")
    side, last = layers[-1][1], layers[-2]
    w_dim = shape("mapping.w_avg")[0]
    labels = shape("mapping.embed.weight")[1] if "mapping.embed.weight" in tensors else 0
    downs = [values for name, values in tensors.items() if name.endswith(".down_filter")]
    return {
        "z_dim": shape("mapping.fc0.weight")[1] - (w_dim if labels else 0),
        "c_dim": labels,
        "w_dim": w_dim,
        "img_resolution": side,
        "img_channels": layers[-1][2],
        "mapping_layers": len([n for n in tensors if re.fullmatch(r"mapping\.fc\d+\.weight", n)]),
        "channel_base": last[2] * side,
        "channel_max": max(layer[2] for layer in layers),
        "num_layers": len(layers) - 1,
        "conv_kernel": shape(f"{layers[0][3]}weight")[2],
        "use_radial_filters": any(values.ndim == 2 for values in downs),
    }


def _check_layers(config: StyleGAN3Config, tensors: Mapping[str, Array]) -> None:
    """The layers and filters that the configuration asks for are those that are there."""
    there = {m[0] for name in tensors if (m := LAYER.match(name))}
    for plan in config.layers:
        prefix = f"synthesis.{plan.name}."
        if prefix not in there:
            raise Unsafe(f"its sizes ask for a layer {plan.name}, which it does not have")
        wanted = filters(plan)
        for name in ("up_filter", "down_filter"):
            got, want = tensors.get(prefix + name), wanted.get(name)
            if (got is None) != (want is None):
                raise Unsafe(f"its layer {plan.name} has other filters than it should")
            if got is None or want is None:
                continue
            near = got.shape == want.shape and np.allclose(got, want, rtol=0, atol=NEAR)
            if not near:
                raise Unsafe(f"the {name} of its layer {plan.name} is not the one of its sizes")
