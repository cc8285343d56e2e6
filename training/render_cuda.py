"""Renders many toy scenes at once on an NVIDIA GPU: the tracer's own functions in a CUDA kernel.

numba compiles the functions of `understudy.toybox.tracer` for the GPU when a kernel calls them, so
there is one tracer. In numba's CUDA simulator (NUMBA_ENABLE_CUDASIM=1) pictures equal the CPU's
bit by bit. On a GPU, sines, powers and fused multiply-adds round differently in the last place;
`check` compares a few pictures. Needs a CUDA driver and the package numba-cuda (the CUDA target
inside numba 0.68 itself does not compile `min`).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy import ndarray

from understudy import toybox
from understudy.toybox import tracer
from understudy.toybox.render import Built, build

if not hasattr(np, "row_stack"):  # NumPy 2.5 has dropped what numba-cuda still asks for
    setattr(np, "row_stack", np.vstack)  # noqa: B010
cuda: Any = importlib.import_module("numba.cuda")
MOST = tracer.MOST  # numba wants the length of a local array as a global of this module
BLOCK = (16, 8)  # threads: columns and rows of pixels
FAR = 1e9  # the tracer's distance of what no ray meets
CLOSE = 0.25  # mean difference from the CPU's pictures that `check` allows, in 8-bit levels


@cuda.jit
def kernel(cameras, shapes, groups, counts, materials, lights, places, over, picture, share, depth):  # type: ignore[no-untyped-def]
    """One thread a pixel; as `tracer.trace`, with 8-bit sRGB in the place of linear colour."""
    scene = cuda.blockIdx.z
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    j = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    height, width = picture.shape[1], picture.shape[2]
    if i >= width or j >= height:
        return
    active = cuda.local.array(MOST, numba.int64)
    camera, group = cameras[scene], groups[scene, : counts[scene]]
    o = (camera[0, 0], camera[0, 1], camera[0, 2])
    for g in range(depth.shape[3]):
        share[scene, j, i, g], depth[scene, j, i, g] = 0.0, FAR
    weight = 1.0 / (over * over)
    red, green, blue = 0.0, 0.0, 0.0
    for ray in range(over * over):
        d = tracer.direction(camera[1], camera[2], camera[3], i, j, ray, over, width, height)
        r, g, b, hit, t = tracer.sample(
            o, d, shapes[scene], group, materials[scene], lights[scene], places[scene], active
        )
        red += weight * min(max(r, 0.0), 1.0)
        green += weight * min(max(g, 0.0), 1.0)
        blue += weight * min(max(b, 0.0), 1.0)
        if hit >= 0:
            share[scene, j, i, hit] += weight
            depth[scene, j, i, hit] = min(depth[scene, j, i, hit], t)
    # A sum of weights may exceed 1 by its rounding, which `render` cuts off too.
    picture[scene, j, i, 0] = int(255.0 * min(red, 1.0) ** (1 / 2.2) + 0.5)
    picture[scene, j, i, 1] = int(255.0 * min(green, 1.0) ** (1 / 2.2) + 0.5)
    picture[scene, j, i, 2] = int(255.0 * min(blue, 1.0) ** (1 / 2.2) + 0.5)


@dataclass(frozen=True)
class Traced:
    """What the kernel found of a scene."""

    picture: ndarray  # (size, size, 3) uint8, sRGB
    share: ndarray  # (size, size, groups) float32, of each pixel
    depth: ndarray  # (size, size, groups) float32


def trace(scenes: Sequence[Built], size: int, *, over: int = 2) -> list[Traced]:
    """Render scenes built for square pictures of `size` pixels; over * over rays a pixel."""
    tables = [_padded([scene.tables[k] for scene in scenes]) for k in range(5)]
    shapes, groups, materials, lights, places = tables
    counts = np.array([len(scene.tables[1]) for scene in scenes])
    cameras = np.stack([np.stack(scene.camera) for scene in scenes])
    given = (cameras, shapes, groups, counts, materials, lights, places)
    on_device = [cuda.to_device(np.ascontiguousarray(one)) for one in given]
    pixels = (len(scenes), size, size)
    results = (
        cuda.device_array((*pixels, 3), np.uint8),
        cuda.device_array((*pixels, groups.shape[1]), np.float32),
        cuda.device_array((*pixels, groups.shape[1]), np.float32),
    )
    grid = (-(-size // BLOCK[0]), -(-size // BLOCK[1]), len(scenes))
    kernel[grid, BLOCK](*on_device, over, *results)
    pictures, share, depth = (one.copy_to_host() for one in results)
    return [
        Traced(pictures[k], share[k, :, :, :count], depth[k, :, :, :count])
        for k, count in enumerate(counts)
    ]


def _padded(tables: Sequence[ndarray]) -> ndarray:
    """Tables of different lengths as one array (n, longest, ...), zeros behind their ends."""
    longest = max(len(table) for table in tables)
    made = np.zeros((len(tables), max(longest, 1), *tables[0].shape[1:]))
    for row, table in zip(made, tables, strict=True):
        row[: len(table)] = table
    return made


def check(scenes: Sequence[toybox.Scene], size: int) -> float:
    """Mean difference of the GPU's pictures from the CPU's, in 8-bit levels.

    Raises ValueError without a GPU, and where the difference is above CLOSE: such a GPU must not
    render training pictures.
    """
    if not cuda.is_available():
        raise ValueError("numba finds no CUDA device")
    traced = trace([build(scene) for scene in scenes], size)
    drawn = np.stack([one.picture for one in traced])
    expected = np.stack([toybox.render(scene, size).picture for scene in scenes])
    difference = float(np.abs(drawn.astype(np.int16) - expected.astype(np.int16)).mean())
    if not difference <= CLOSE:
        raise ValueError(f"pictures differ from the CPU's by {difference:.2f} levels on average")
    return difference
