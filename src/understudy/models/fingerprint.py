"""Fingerprint of a model: SHA-256 over configuration and weights; detects changed weights.

The identity is that of the files, so the same model at another precision, in another folder or from
the hub has the same fingerprint. While the weights differ (a concept is applied), the fingerprint
does too, and it comes back with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.files.reading import read_json, sha256
from understudy.models.folder import WEIGHTS
from understudy.models.weight_files import weight_files

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Fingerprint:
    """The fingerprint of a model loaded from folder with these modules.

    Ask for base() before changing weights: the sums that tell "changed back" are made then. Changes
    are noticed through PyTorch's version counters, so a write through Tensor.data is not.
    """

    def __init__(self, folder: Path, modules: Mapping[str, nn.Module]) -> None:
        self.folder = folder
        self.modules = modules
        self._loaded = self._versions()
        self._files: str | None = None
        self._original: str | None = None
        self._last: tuple[tuple[int, ...], str] | None = None

    def settled(self) -> None:
        """The weights are where they stay: what moves from here on is noticed."""
        self._loaded = self._versions()

    def base(self) -> str:
        """The files' fingerprint, 64 hex digits."""
        if self._files is None:
            self._files = files_digest(self.folder)
        if self._original is None and self._versions() == self._loaded:
            self._original = weights_digest(self.modules)
        return self._files

    def current(self) -> str:
        """The base fingerprint while the weights are those of the files, else another one."""
        base, versions = self.base(), self._versions()
        if versions == self._loaded:
            return base
        if self._last is None or self._last[0] != versions:
            self._last = (versions, weights_digest(self.modules))
        sums = self._last[1]
        if sums == self._original:
            return base
        return hashlib.sha256(f"{base}{sums}".encode()).hexdigest()

    def _versions(self) -> tuple[int, ...]:
        found: list[int] = []
        left: list[nn.Module | None] = list(self.modules.values())
        while left:  # several times as fast as named_parameters(), and asked in every step
            if (module := left.pop()) is None:
                continue
            for tensor in (*module._parameters.values(), *module._buffers.values()):  # pyright: ignore[reportPrivateUsage]
                if tensor is not None:
                    found += (tensor.data_ptr(), tensor._version)  # pyright: ignore[reportPrivateUsage]
            left += module._modules.values()  # pyright: ignore[reportPrivateUsage]
        return tuple(found)


def files_digest(folder: Path) -> str:
    """SHA-256 over the files of a diffusers folder that decide what it computes.

    Configurations count without their private keys (library versions, paths); of the weights, the
    files that are loaded. Raises ModelError where those are missing or damaged.
    """
    whole = hashlib.sha256()
    parts = [folder / part for part in WEIGHTS]
    loaded = {file for part in parts if part.is_dir() for file in weight_files(part)}
    for file in sorted(folder.glob("*/*")):
        name = file.relative_to(folder).as_posix()
        if name.startswith("tokenizer") and file.suffix in (".json", ".txt"):
            digest = _file_digest(file)
        elif file.name in ("config.json", "scheduler_config.json"):
            values = read_json(file, error=ModelError)
            if not isinstance(values, dict):
                raise ModelError(f"{file} holds no object of settings. Download it again.")
            public = {key: value for key, value in values.items() if not key.startswith("_")}
            digest = hashlib.sha256(json.dumps(public, sort_keys=True).encode()).hexdigest()
        elif file in loaded:
            digest = _file_digest(file)
        else:
            continue
        whole.update(f"{name} {digest}\n".encode())
    return whole.hexdigest()


def weights_digest(modules: Mapping[str, nn.Module]) -> str:
    """SHA-256 over column sums of the bits of every tensor: quick, and sees any real change."""
    whole = hashlib.sha256()
    for part, module in sorted(modules.items()):
        for name, tensor in _tensors(module).items():
            bits = tensor.detach().contiguous().view(_BITS[tensor.element_size()])
            sums = bits.reshape(bits.shape[0] if bits.ndim > 1 else 1, -1).sum(0, dtype=torch.int64)
            whole.update(f"{part}.{name}".encode() + sums.cpu().numpy().tobytes())
    return whole.hexdigest()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _file_digest(file: Path) -> str:
    # The hub's cache names large files by their SHA-256. A name proves nothing, so all are read.
    return sha256(file, error=ModelError)
