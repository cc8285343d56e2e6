"""LoRA (Hu et al. 2021, arXiv:2106.09685) by peft: low-rank changes of some layers are learnt.

Each chosen layer W gets A (rank x inputs, random) and B (outputs x rank, zero) and computes
W x + alpha / rank * B A x. The layers are wrapped while they train, and unwrapped afterwards: the
 very same modules as before.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.errors import InputError
from understudy.learn.trainable import Trainable, widest
from understudy.models.interface import DiffusionModel, denoiser_part

ADAPTER = "understudy"
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # of a CLIP text encoder


@contextmanager
def low_rank(
    model: DiffusionModel,
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    train_text: bool,
    seed: int,
) -> Generator[Trainable]:
    """Low-rank changes of the layers whose names end in one of `targets`, ready for training.

    Those of the text encoders' attention besides, if wanted. When the block ends, the model is as
    it was. Raises InputError where no layer of the denoising network has such a name.
    """
    wanted = {denoiser_part(model): tuple(targets)}
    if train_text:
        wanted |= {p: TEXT_TARGETS for p in model.trainable_modules() if p.startswith("text")}
    layers: dict[str, Any] = {}
    try:
        for part, names in wanted.items():
            layers |= _wrap(part, model.trainable_modules()[part], names, rank, alpha, seed)
        parameters = {
            f"{layer}.weight.{letter}": _factor(layers[layer], letter)
            for layer in layers
            for letter in ("lora_A", "lora_B")
        }
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield Trainable(
            parameters,
            model.embed,
            train_text,
            lambda: _tensors(layers, alpha),
            partial(_without, layers),
        )
    finally:
        for part, module in model.trainable_modules().items():
            _unwrap(module)
            if part in wanted and hasattr(module, "peft_config"):
                del module.peft_config


def _wrap(
    part: str, module: nn.Module, targets: Sequence[str], rank: int, alpha: float, seed: int
) -> dict[str, Any]:
    """Wrap the layers of one part; the wrapped ones by "part.layer"."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora.layer import LoraLayer

    modules = dict(module.named_modules())
    found = [name for name in modules if name.endswith(tuple(f".{t}" for t in targets))]
    if not found:
        raise InputError(
            f"--targets must name layers of the {part}, such as to_q. None of its layers ends in "
            f"{', '.join(targets)}."
        )
    config = LoraConfig(
        r=rank, lora_alpha=cast(Any, alpha), target_modules=found, init_lora_weights="gaussian"
    )
    # peft freezes the layers it wraps; the caller's own flags are put back.
    needed = [parameter.requires_grad for parameter in module.parameters()]
    plain = list(module.parameters())
    with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator
        torch.manual_seed(seed)
        inject_adapter_in_model(config, module, adapter_name=ADAPTER)
    for parameter, was in zip(plain, needed, strict=True):
        parameter.requires_grad_(was)
    wrapped = {n: m for n, m in module.named_modules() if isinstance(m, LoraLayer)}
    for layer in wrapped.values():
        for factor in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
            # Factors train in float32 even on half-precision weights: updates of 1e-4 would vanish
            # in half precision.
            factor.to(dtype=widest(next(factor.parameters()).dtype))
    return {f"{part}.{name}": layer for name, layer in wrapped.items()}


def _unwrap(module: nn.Module) -> None:
    """Put every wrapped layer of a module back in its place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "base_layer") and hasattr(child, "lora_A"):
                parent.register_module(name, cast(Any, child).base_layer)


@contextmanager
def _without(layers: dict[str, Any]) -> Generator[None]:
    """The layers compute what they did before, inside the block."""
    scales = {name: layer.scaling[ADAPTER] for name, layer in layers.items()}
    try:
        for layer in layers.values():
            # A scale of zero leaves the base layer's output bit for bit, and needs no unwrapping.
            layer.scaling[ADAPTER] = 0.0
        yield
    finally:
        for name, layer in layers.items():
            layer.scaling[ADAPTER] = scales[name]


def _factor(layer: Any, letter: str) -> nn.Parameter:
    return cast(nn.Parameter, getattr(layer, letter)[ADAPTER].weight)


def _tensors(layers: dict[str, Any], alpha: float) -> dict[str, Tensor]:
    """A, B and alpha of every layer, float32 on the CPU, convolutions as matrices."""
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for letter in ("lora_A", "lora_B"):
            factor = _factor(layer, letter).detach().float().cpu()
            tensors[f"{name}.weight.{letter}"] = factor.flatten(1).clone()
        tensors[f"{name}.weight.alpha"] = torch.tensor(float(alpha))
    return tensors
