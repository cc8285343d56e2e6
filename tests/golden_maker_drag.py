"""The drags and trackings of a golden folder in the making, by `plain_drag` in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from plain_drag import PlainDrag, features, plain_drag
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.generator import StyleGAN2

SCALES = {"noise_strength": 0.25, "bias": 0.2, "w_avg": 0.3}
DRAGS: dict[str, dict[str, Any]] = {
    "one_point": {"space": "w+", "points": 1, "mask": False},
    "w_three_points_mask": {"space": "w", "points": 3, "mask": True},
    "two_points_mask": {"space": "w+", "points": 2, "mask": True, "weight": 8.0, "steps": 6},
    "four_layers": {"space": "w", "points": 2, "mask": False, "moving": 4, "steps": 5},
}


def make_network(
    folder: Path, seed: int, size: int, mapping: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Weights (float64) of a random skip network, written to the folder, and a start latent."""
    arguments = {
        "z_dim": 16, "c_dim": 0, "w_dim": 12, "img_resolution": size, "img_channels": 3,
        "mapping_kwargs": {"num_layers": mapping},
        "synthesis_kwargs": {
            "channel_base": 4 * size, "channel_max": 8, "num_fp16_res": 0, "conv_clamp": None,
            "architecture": "skip",
        },
    }  # fmt: skip
    draws = torch.Generator().manual_seed(seed)
    empty = StyleGAN2(StyleGAN2Config.from_arguments(arguments), folder.name, "golden")
    weights = {}
    for name, old in empty.state_dict().items():
        drawn = torch.randn(old.shape, generator=draws)
        kind = name.rsplit(".", 1)[1]
        if name.startswith("mapping.fc"):
            drawn *= 100 if kind == "weight" else 15
        elif name.endswith("affine.bias"):
            drawn = 1 + 0.25 * drawn
        else:
            drawn *= SCALES.get(kind, 0.35 if "torgb.weight" in name else 1.0)
        weights[name] = old if "filter" in name else drawn
    z = np.random.RandomState(seed).randn(2, 16)
    ws = {psi: mapped(weights, torch.from_numpy(z), mapping, psi) for psi in (1.0, 0.6)}
    count = 2 * int(math.log2(size)) - 2
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps({"init_kwargs": arguments}, indent=1) + "\n")
    wide = {psi: w[:, None].repeat(1, count, 1) for psi, w in ws.items()}
    exact = {name: tensor.double() for name, tensor in weights.items()}
    seen = features(exact, wide[0.6][0], size // 2)
    golden = {
        "z": torch.from_numpy(z),
        "ws_psi1": wide[1.0].float(),
        "ws_psi0.6": wide[0.6].float(),
        "ws_psi0.7": wide[0.6].float(),
        f"feat.b{size // 2}.stride3": seen[..., ::3, ::3].float(),
    }
    golden["ws_psi0.7"] = (
        mapped(weights, torch.from_numpy(z), mapping, 0.7)[:, None].repeat(1, count, 1).float()
    )
    seen = features(exact, golden["ws_psi0.7"][0].double(), size // 2)
    golden[f"feat.b{size // 2}.stride3"] = seen[..., ::3, ::3].float()
    save_file({n: t.contiguous() for n, t in golden.items()}, folder / "golden.safetensors")
    return exact, wide[0.6][:1].float()


def mapped(weights: dict[str, Tensor], z: Tensor, layers: int, psi: float) -> Tensor:
    """w of z, without labels (Karras et al. 2020)."""
    x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for n in range(layers):
        weight, bias = (weights[f"mapping.fc{n}.{kind}"].double() for kind in ("weight", "bias"))
        x = x @ (weight * 0.01 / math.sqrt(weight.shape[1])).T + bias * 0.01
        x = torch.nn.functional.leaky_relu(x, 0.2) * math.sqrt(2)
    mean = weights["mapping.w_avg"].double()
    return mean + psi * (x - mean)


def make_drags(root: Path, seed: int) -> None:
    random = np.random.RandomState(seed)
    (root / "c_drag").mkdir(parents=True, exist_ok=True)
    for n, (name, how) in enumerate(DRAGS.items()):
        size, net = (64, 128)[n % 2], f"a_generator/net{(64, 128)[n % 2]}"
        weights, w0 = make_network(root / net, seed + n % 2, size, (8, 3)[n % 2])
        count, moving = how["points"], how.get("moving", 6)
        low, high = size // 4, 3 * size // 4
        points = [tuple(map(int, point)) for point in random.randint(low, high, (count, 2))]
        moves = random.randint(3, size // 8, (count, 2)) * random.choice([-1, 1], (count, 2))
        targets = [
            (y + int(dy), x + int(dx)) for (y, x), (dy, dx) in zip(points, moves, strict=True)
        ]
        mask = torch.zeros(size, size).double()
        if how["mask"]:
            mask[:] = 1
            mask[size // 6 : 5 * size // 6, size // 8 : 7 * size // 8] = 0
        drag = PlainDrag(
            how["space"], 1e-2, mask, how.get("weight", 20.0) if how["mask"] else 0.0,
            feature_resolution=size // 2, r1=12, r2=40, moving=moving,
        )  # fmt: skip
        steps = plain_drag(weights, w0.double(), points, targets, drag, how.get("steps", 8))
        near = max(2 / 512 * size, 2)
        arrays = {
            "w0": w0,
            "points0": torch.tensor(points).int(),
            "targets0": torch.tensor(targets).int(),
            "points": torch.tensor([step.points for step in steps]).int(),
            "motion_loss": torch.tensor([step.motion for step in steps]).float(),
            "total_loss": torch.tensor([step.total for step in steps]).float(),
            "w_after": torch.stack([step.after[0] for step in steps]).float(),
            "stop": torch.tensor(
                [
                    all(math.dist(p, t) <= near for p, t in zip(s.points, targets, strict=True))
                    for s in steps
                ]
            ),
        }
        if how["mask"]:
            arrays |= {"mask": mask.to(torch.uint8)}
            arrays["mask_loss"] = torch.tensor([step.mask for step in steps]).float()
        path = root / "c_drag" / name
        np.savez_compressed(path.with_suffix(".npz"), **{k: v.numpy() for k, v in arrays.items()})
        told = {"net": net, "space": how["space"], "lr": 1e-2, "r1": 12, "r2": 40,
                "feature_resolution": size // 2, "lambda_mask": drag.mask_weight}  # fmt: skip
        told |= {"trained_layers": moving} if moving != 6 else {}
        path.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")


def make_trackings(root: Path, seed: int) -> None:
    """Tracking alone, over prepared maps of integers."""
    random = np.random.RandomState(seed)
    (root / "e_tracking").mkdir(parents=True, exist_ok=True)
    for n, (size, cells, radius) in enumerate(((48, 48, 4), (40, 20, 3))):
        maps = [random.randint(-32, 32, (1, 3, cells, cells)).astype(np.float32) / 16]
        maps += [np.roll(maps[0], shift, (2, 3)) for shift in ((1, 2), (-1, 1))]
        wide = [
            torch.nn.functional.interpolate(torch.from_numpy(m), [size, size], mode="bilinear")[
                0
            ].double()
            for m in maps
        ]
        here = [tuple(map(int, p)) for p in random.randint(0, size, (3 + n, 2))]
        arrays: dict[str, Any] = {"points0": np.array(here, np.int32)}
        references, tracks = [wide[0][:, y, x] for y, x in here], []
        for frame in wide:
            here = [nearest(frame, p, r, radius) for p, r in zip(here, references, strict=True)]
            tracks.append(here)
        arrays |= {"points": np.array(tracks, np.int32), "image_resolution": np.int32(size)}
        arrays |= {"radius_pixels": np.int32(radius)}
        arrays |= {f"feat{i}": m for i, m in enumerate(maps)}
        np.savez_compressed(root / "e_tracking" / f"track{n}.npz", **arrays)
        (root / "e_tracking" / f"track{n}.json").write_text("{}\n")


def nearest(frame: Tensor, point: tuple[int, int], wanted: Tensor, radius: int) -> tuple[int, int]:
    """The place within the window, clipped, whose features are nearest; the first of equals."""
    size, best = frame.shape[-1], (math.inf, point)
    for y in range(max(point[0] - radius, 0), min(point[0] + radius, size - 1) + 1):
        for x in range(max(point[1] - radius, 0), min(point[1] + radius, size - 1) + 1):
            apart = float((frame[:, y, x] - wanted).square().sum().sqrt())
            if apart < best[0]:
                best = (apart, (y, x))
    return best[1]


def make_drag(root: Path, seed: int) -> None:
    """Networks, drags and trackings."""
    make_drags(root, seed)
    make_trackings(root, seed)
