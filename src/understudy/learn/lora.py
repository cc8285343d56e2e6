"""LoRA (Hu et al. 2021, arXiv:2106.09685) by peft: low-rank changes of some layers are learnt.

Each chosen layer W gets A (rank x inputs, random) and B (outputs x rank, zero) and computes
W x + alpha / rank * B A x. The layers are wrapped while they train, and unwrapped afterwards: the
very same modules as before. Quantised layers keep their codes, and A and B are learnt beside them
(QLoRA, Dettmers et al. 2023, arXiv:2305.14314).
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
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
    beside = _beside(model, tuple(targets), rank, alpha, seed)
    try:
        for part, names in wanted.items():
            module = model.trainable_modules()[part]
            layers |= _wrap(part, module, names, rank, alpha, seed, beside)
        parameters = {
            f"{layer}.weight.{letter}": _factor(layers[layer], letter)
            for layer in layers
            for letter in ("lora_A", "lora_B")
        }
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for name, factors in beside.items():
            parameters |= {f"{name}.{letter}": factors[letter] for letter in factors}
        yield Trainable(
            parameters,
            model.embed,
            train_text,
            lambda: _tensors(layers, alpha) | _tensors_beside(beside, alpha),
            partial(_without, model, layers),
        )
    finally:
        for name in beside:
            _unmerged(model)[name].changes.pop()
        for part, module in model.trainable_modules().items():
            _unwrap(module)
            if part in wanted and hasattr(module, "peft_config"):
                del module.peft_config


def _wrap(
    part: str,
    module: nn.Module,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    seed: int,
    beside: Collection[str],
) -> dict[str, Any]:
    """Wrap the layers of one part; the wrapped ones by "part.layer".

    beside: weights that are quantised, whose layers are left alone.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora.layer import LoraLayer

    modules = dict(module.named_modules())
    ends = tuple(f".{target}" for target in targets)
    # FLUX.2's "attn.to_out" is a layer in single blocks, and a list with one in double blocks.
    found = [
        name
        for name, layer in modules.items()
        if name.endswith(ends)
        and (isinstance(layer, (nn.Linear, nn.Conv2d)) or f"{part}.{name}.weight" in beside)
    ]
    dense = [name for name in found if f"{part}.{name}.weight" not in beside]
    if found and not dense:
        return {}
    if not found:
        raise InputError(
            f"--targets must name layers of the {part}, such as to_q. None of its layers ends in "
            f"{', '.join(targets)}."
        )
    config = LoraConfig(
        r=rank, lora_alpha=cast(Any, alpha), target_modules=dense, init_lora_weights="gaussian"
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


def _unmerged(model: DiffusionModel) -> Mapping[str, Any]:
    """Layers of a quantised model by the name of their weight."""
    return getattr(model, "unmerged", {})


def _beside(
    model: DiffusionModel, targets: tuple[str, ...], rank: int, alpha: float, seed: int
) -> dict[str, dict[str, nn.Parameter]]:
    """A and B beside the quantised layers that are named; empty for other models."""
    draws = torch.Generator().manual_seed(seed)
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, layer in _unmerged(model).items():
        if name.removesuffix(".weight").endswith(tuple(f".{target}" for target in targets)):
            a = torch.randn(rank, layer.in_features, generator=draws) / rank
            a, b = a.to(model.device), torch.zeros(layer.out_features, rank, device=model.device)
            factors = {"lora_A": nn.Parameter(a), "lora_B": nn.Parameter(b)}
            layer.changes.append((*factors.values(), alpha / rank))
            found[name] = factors
    return found


def _tensors_beside(
    beside: Mapping[str, Mapping[str, nn.Parameter]], alpha: float
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, factors in beside.items():
        for letter, factor in factors.items():
            tensors[f"{name}.{letter}"] = factor.detach().float().cpu().clone()
        tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


def _unwrap(module: nn.Module) -> None:
    """Put every wrapped layer of a module back in its place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "base_layer") and hasattr(child, "lora_A"):
                parent.register_module(name, cast(Any, child).base_layer)


@contextmanager
def _without(model: DiffusionModel, layers: dict[str, Any]) -> Generator[None]:
    """The layers compute what they did before, inside the block."""
    scales = {name: layer.scaling[ADAPTER] for name, layer in layers.items()}
    beside = {name: list(layer.changes) for name, layer in _unmerged(model).items()}
    try:
        for name, changes in beside.items():
            _unmerged(model)[name].changes[:] = changes[:-1]
        for layer in layers.values():
            # A scale of zero leaves the base layer's output bit for bit, and needs no unwrapping.
            layer.scaling[ADAPTER] = 0.0
        yield
    finally:
        for name, layer in layers.items():
            layer.scaling[ADAPTER] = scales[name]
        for name, changes in beside.items():
            _unmerged(model)[name].changes[:] = changes


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
