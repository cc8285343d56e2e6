"""A stand-in for a CUDA device on a machine that has none: where a loop makes the host wait.

Tensors "on" it say that their device is cuda:0, and are computed on the CPU, so a loop takes the
path that it takes on a GPU, with real numbers. Four things are seen that a run on a CPU hides:

* copies between host and device. To the device, too, PyTorch waits for the whole stream, unless the
  copy is non_blocking; a number made by `torch.tensor(.., device="cuda")` is such a copy;
* numbers that the host asks for (`item`, a truth value, `tolist`, `nonzero`, a boolean index);
* operators whose tensors lie on two devices, an error as on a GPU;
* any such read or copy while a CUDA graph is recorded, an error as well. A replay runs the function
  again, and leaves what it gives where the first run left it.

Times, memory and the kernels that CUDA would choose are not modelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from understudy.cuda_graphs.capture import CUDACapture
from understudy.cuda_graphs.tensor_tree import copy_all, tensors_of

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
UNDER = torch.device("meta")  # what PyTorch's own code takes a stand-in for; no CUDA is needed
READS = {aten._local_scalar_dense.default: "item", aten.equal.default: "equal",
         aten.is_nonzero.default: "truth value", aten.nonzero.default: "nonzero",
         aten.masked_select.default: "masked_select", aten._unique2.default: "unique",
         aten._linalg_check_errors.default: "singular matrix"}  # fmt: skip
MAKES = (torch.tensor, torch.as_tensor, Tensor.new_tensor)  # from numbers of the host
# Take tensors of the host beside those of a GPU: indices are copied, and so is copy_'s source.
MIXES = (aten.copy_.default, aten.index.Tensor, aten.index_put_.default)


@dataclass
class Waits:
    """Where the host waited for all that was launched, by what it did.

    sent: copies to the device that it did not wait for. read: numbers it waited for by an event
    that was recorded where they were computed, so not for what was launched since.
    """

    host: Counter[str] = field(default_factory=Counter[str])
    sent: int = 0
    read: int = 0

    @property
    def total(self) -> int:
        return self.host.total()


class OnGPU(Tensor):
    """A tensor that says it is on a GPU. value: the same on the CPU."""

    waits: ClassVar[Waits] = Waits()
    value: Tensor

    @staticmethod
    def __new__(cls: Any, value: Tensor) -> OnGPU:
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, value.shape, strides=value.stride(), storage_offset=value.storage_offset(),
            dtype=value.dtype, device=UNDER,
        )  # fmt: skip
        made.value = value
        return made

    device = property(lambda self: GPU)  # pyright: ignore
    is_cuda = property(lambda self: True)  # pyright: ignore
    is_cpu = property(lambda self: False)  # pyright: ignore
    is_meta = property(lambda self: False)  # pyright: ignore

    def __repr__(self, **_: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"OnGPU({self.value})"

    def tolist(self) -> Any:
        self.waits.host["tolist"] += 1
        return self.value.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("a tensor of a GPU has no numpy array")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, dict(kwargs or {}))


def mapped(call: Callable[[Any], Any], tree: Any) -> Any:
    """`tree_map`, quick for arguments of operators: PyTorch's own takes half of a run's time."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind([mapped(call, one) for one in tree])
    if kind is dict:
        return {name: mapped(call, one) for name, one in tree.items()}
    if isinstance(tree, (tuple, list, dict)):  # such as a named tuple
        return tree_map(call, tree)
    return call(tree)


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator gives, on the device where it gives it; transfers and reads are noted."""
    places = set[bool]()

    def lowered(x: Any) -> Any:
        if isinstance(x, Tensor) and (x.dim() or isinstance(x, OnGPU)):
            places.add(isinstance(x, OnGPU))
        return x.value if isinstance(x, OnGPU) else x

    low, named = mapped(lowered, (args, kwargs))
    here = True in places
    if len(places) == 2:
        _mixed(func, args)
    if here and func in READS:
        OnGPU.waits.host[READS[func]] += 1
    if func in MIXES:
        _indices(func, args)
    if (device := kwargs.get("device")) is not None:
        there = torch.device(device).type == UNDER.type
        named["device"] = torch.device("cpu")
        if func is aten._to_copy.default and here != there:
            _copied(to_gpu=there, waits=not kwargs.get("non_blocking"))
        here = there
    named.pop("pin_memory", None)
    out = func(*low, **named)
    if not here:
        return out
    name = func._schema.name
    if name.endswith("_") and not name.endswith("__") and isinstance(args[0], Tensor):
        return args[0]
    return mapped(lambda x: OnGPU(x) if isinstance(x, Tensor) else x, out)


def _mixed(func: Any, args: tuple[Any, ...]) -> None:
    """Raises RuntimeError for tensors on two devices, where CUDA would; notes copies by copy_."""
    if func not in MIXES:
        raise RuntimeError(f"{func}: expected all tensors on one device, got cuda:0 and cpu")
    if func is aten.copy_.default:
        _copied(to_gpu=isinstance(args[0], OnGPU), waits=len(args) < 3 or not args[2])


def _indices(func: Any, args: tuple[Any, ...]) -> None:
    """Notes what indexing a tensor of a GPU copies or reads."""
    if func is aten.copy_.default or not isinstance(args[0], OnGPU):
        return
    for index in args[1]:
        if isinstance(index, Tensor) and not isinstance(index, OnGPU):
            _copied(to_gpu=True, waits=True)
        elif isinstance(index, Tensor) and index.dtype == torch.bool:
            OnGPU.waits.host["boolean index"] += 1


def _copied(*, to_gpu: bool, waits: bool) -> None:
    if waits:
        OnGPU.waits.host["copy to the device" if to_gpu else "copy to the host"] += 1
    elif to_gpu:
        OnGPU.waits.sent += 1


class _Devices(TorchFunctionMode):
    """Names of CUDA devices become what PyTorch's own code takes a stand-in for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = mapped(_under, args), mapped(_under, dict(kwargs or {}))
        if func is torch.Tensor.cpu and isinstance(args[0], OnGPU):
            return args[0].to("cpu")
        if func is torch.Tensor.pin_memory:
            return args[0]
        made_for = kwargs.get("device")
        if func is Tensor.new_tensor and isinstance(args[0], OnGPU):
            made_for, func, args = UNDER, torch.tensor, args[1:]
        if func in MAKES and made_for == UNDER:
            if isinstance(args[0], Tensor):
                return args[0].to(**kwargs)
            kwargs["device"] = torch.device("cpu")
            return func(*args, **kwargs).to(UNDER)
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    """Operators that get no tensor of the stand-in, such as those that make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, dict(kwargs or {}))


def _under(x: Any) -> Any:
    if isinstance(x, str):
        return UNDER if x.split(":")[0] == "cuda" else x
    return UNDER if isinstance(x, torch.device) and x.type == "cuda" else x


class _Event:
    """A CUDA event: what it marks has always happened."""

    def record(self) -> None: ...

    def synchronize(self) -> None:
        OnGPU.waits.read += 1


class Replaying:
    """A `Capturer` for work that runs on a CPU: a replay writes where the first run wrote."""

    def __init__(self, shared: bool = True) -> None: ...

    def runs_on(self, device: torch.device) -> bool:
        return True

    def has_room(self, device: torch.device) -> bool:
        return True

    def warmed(self, run: Callable[[], Any], device: torch.device) -> None:
        run()

    def captured(
        self, run: Callable[[], Any], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        with watched() as waits:
            outputs = run()
        if waits.total or waits.sent or waits.read:
            raise RuntimeError(f"not permitted while a graph is recorded: {waits}")

        def replay() -> None:
            copy_all(tensors_of(outputs), tensors_of(run()))

        return replay, outputs

    def forget(self) -> None: ...


@contextmanager
def stand_in() -> Generator[None]:
    """Inside the block "cuda" is a device."""
    with ExitStack() as stack:
        for name in ("runs_on", "has_room", "warmed", "captured", "forget"):
            stack.enter_context(patch.object(CUDACapture, name, getattr(Replaying, name)))
        stack.enter_context(patch.object(torch.cuda, "Event", _Event))
        stack.enter_context(_Devices())
        stack.enter_context(_Operators())
        yield


@contextmanager
def watched() -> Generator[Waits]:
    """Counts where the host waits, inside the block."""
    before, OnGPU.waits = OnGPU.waits, Waits()
    try:
        yield OnGPU.waits
    finally:
        OnGPU.waits = before


def moved(*modules: nn.Module) -> None:
    """Put the weights of networks on the stand-in: parameters and buffers are made anew."""
    for module in modules:
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    made = nn.Parameter(OnGPU(parameter.data), parameter.requires_grad)
                    part._parameters[name] = made
            for name, buffer in part._buffers.items():
                part._buffers[name] = None if buffer is None else OnGPU(buffer)
