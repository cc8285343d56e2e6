#!/usr/bin/env python
"""Train the built-in generator of toy faces, from scratch, on CPU or CUDA.

    python -m training.build_toybox_gan faces --count 4000
    python -m training.build_toybox_gan train --minutes 60
    python -m training.build_toybox_gan finder --minutes 8
    python -m training.build_toybox_gan pack
    python -m training.build_toybox_gan measure

The world knows which face each picture shows, so nothing has to be guessed by an adversary: the
first coordinates of a latent z, through the normal distribution, are the numbers of a face, and
mapping and synthesis learn together to draw that face. Coarse layers take the w of one z and fine
layers that of another, which settles what each may change: outlines below, colours above. The
picture grows from 32 to 128 pixels on the way. Each stage goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from understudy import toybox
from understudy.evaluate.gan_scores import drawn_pictures, path_lengths, trunk_features
from understudy.files.atomic import replacing
from understudy.generators.folder import load_generator, save_generator
from understudy.generators.style_based import StyleMapping
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.generators.stylegan2.layers import Linear
from understudy.models.precision import half_precision
from understudy.pictures.metrics import frechet_distance, psnr
from understudy.pictures.recipe import Recipe
from understudy.pictures.tensors import write_picture
from understudy.toybox.faces import PARAMETERS, SHAPE
from understudy.vision.landmarks import (
    BUILT_IN,
    FinderNetwork,
    LandmarkFinder,
    finder_loss,
    landmark_errors,
    save_finder,
)
from understudy.vision.landmarks import load as load_finder
from understudy.vision.perceptual import RecogniserFeatures
from understudy.vision.recogniser import load as load_recogniser

CHUNK, SIDE = 250, 128
PLAIN = 20_000_000  # added to the seeds of faces that all look alike
HELD_OUT = 10_000_000  # seeds from here on are never trained on
CONFIG = StyleGAN2Config(
    z_dim=64, w_dim=128, img_resolution=SIDE, mapping_layers=2, mapping_lr_multiplier=1.0,
    channel_base=2048, channel_max=128,
)  # fmt: skip
COARSE = 6  # layers that take the outlines' w, as many as a drag moves
# From which share of the time, at which resolution, and whether all faces look alike: outlines are
# learnt from faces of one colouring first, because what is mixed in colour averages out to grey.
PHASES = ((0.0, 32, True), (0.12, 64, True), (0.25, 64, False), (0.47, SIDE, False))
# Faces in one colouring at 64 pixels; those that the generator is to draw; and all that there are,
# for the finder.
KINDS = ("plain", "drawn", "wide")
# What the generator's faces are within all that a `Face` can be: a small network draws a smaller
# world more sharply. Numbers that are not named keep the value of `toybox.Face()`.
RANGES = {
    "turn": (0.28, 0.72), "nod": (0.35, 0.65), "tilt": (0.38, 0.62), "mouth": (0.0, 0.9),
    "smile": (0.2, 1.0), "left_eye": (0.05, 1.0), "right_eye": (0.05, 1.0),
    "gaze_x": (0.25, 0.75), "gaze_y": (0.35, 0.65), "ear_length": (0.2, 0.8),
    "ear_fold": (0.0, 0.6), "ear_width": (0.35, 0.65), "head_width": (0.3, 0.7),
    "eye_size": (0.4, 0.8), "fur": (0.1, 0.6), "fur_light": (0.4, 0.6), "eyes": (0.4, 0.7),
    "scarf": (0.2, 0.6), "backdrop": (0.5, 1.0), "backdrop_light": (0.4, 0.8),
    "light_from": (0.3, 0.7),
}  # fmt: skip
WATCHED = tuple(
    row for row, name in enumerate(toybox.FACE_POINTS)
    if any(part in name for part in ("eye", "mouth", "lip", "nose"))
)  # fmt: skip


# --- faces --------------------------------------------------------------------------------------


def render_faces(options: argparse.Namespace) -> None:
    """Picture n is the face of seed n, so that more can be added later: as many of each kind."""
    for kind in KINDS:
        folder = options.data / kind
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, options.count, CHUNK):
            final = folder / f"{start:07d}.npz"
            if final.exists():
                continue
            with replacing(final) as staged, staged.open("wb") as file:
                np.savez(file, **drawn_faces(range(start, start + CHUNK), kind))
            print(f"{start + CHUNK} of {options.count} faces", flush=True)


def drawn_faces(seeds: range, kind: str = "drawn") -> dict[str, np.ndarray]:
    """pictures (n, side, side, 3) uint8, numbers (n, parameters) as shares of their ranges, points
    (n, k, 3): x, y in pixels of 128, visible."""
    plain = kind == "plain"
    side = SIDE // 2 if plain else SIDE
    pictures = np.zeros((len(seeds), side, side, 3), np.uint8)
    numbers = np.zeros((len(seeds), len(PARAMETERS)), np.float32)
    points = np.zeros((len(seeds), len(toybox.FACE_POINTS), 3), np.float32)
    for row, seed in enumerate(seeds):
        shares = toybox.sample_face(PLAIN + seed if plain else seed).numbers()
        face = toybox.Face.of(shares) if kind == "wide" else face_of(shares)
        if plain:
            face = replace(toybox.Face(), **{name: getattr(face, name) for name in SHAPE})
        drawn = toybox.portrait(face, side, over=1 if plain else 2)
        pictures[row], numbers[row] = drawn.picture, shares
        scale = SIDE / side
        points[row] = [(scale * p.x, scale * p.y, p.visible) for p in drawn.keypoints.values()]
    return {"pictures": pictures, "numbers": numbers, "points": points}


def face_of(shares: Sequence[float]) -> toybox.Face:
    """The face whose numbers are at these shares of their ranges."""
    said = dict(zip(PARAMETERS, shares, strict=True))
    numbers = {n: low + (high - low) * said[n] for n, (low, high) in RANGES.items()}
    return replace(toybox.Face(), **numbers)


@dataclass
class Faces:
    """Rendered faces: pictures (n, 3, 128, 128) uint8, numbers (n, p), points (n, k, 3)."""

    pictures: Tensor
    numbers: Tensor
    points: Tensor

    @classmethod
    def of(cls, parts: list[dict[str, np.ndarray]]) -> Faces:
        names = ("pictures", "numbers", "points")
        whole = {n: torch.from_numpy(np.concatenate([part[n] for part in parts])) for n in names}
        return cls(whole["pictures"].permute(0, 3, 1, 2), whole["numbers"], whole["points"])

    @classmethod
    def read(cls, folder: Path) -> Faces:
        files = sorted(folder.glob("*.npz"))
        if not files:
            raise SystemExit(f"{folder} holds no faces: run the stage 'faces' first.")
        return cls.of([dict(np.load(path)) for path in files])

    def draw(self, count: int, randomness: torch.Generator) -> Faces:
        return self.take(torch.randint(len(self.pictures), (count,), generator=randomness))

    def take(self, rows: Tensor) -> Faces:
        return Faces(self.pictures[rows], self.numbers[rows], self.points[rows])

    def shown(self, device: torch.device | str = "cpu", side: int = SIDE) -> Tensor:
        """The pictures in [-1, 1], made smaller."""
        pictures = self.pictures.to(device).float() / 127.5 - 1
        return F.avg_pool2d(pictures, pictures.shape[-1] // side)


def save(state: dict[str, Any], path: Path) -> None:
    with replacing(path) as staged:
        torch.save(state, staged)


# --- the generator ------------------------------------------------------------------------------


def latents_of(numbers: Tensor, randomness: torch.Generator) -> Tensor:
    """z, of length sqrt(64), whose first coordinates say the numbers; the rest is chance."""
    said = torch.special.ndtri(numbers.double().clamp(1e-3, 1 - 1e-3)).float()
    rest = torch.randn(len(said), CONFIG.z_dim - said.shape[1], generator=randomness)
    room = (CONFIG.z_dim - said.square().sum(1, keepdim=True)).clamp(min=1.0)
    return torch.cat([said, rest * (room / rest.square().sum(1, keepdim=True)).sqrt()], dim=1)


def numbers_of(z: Tensor) -> Tensor:
    """The reverse: the numbers of the face that a latent means, (n, parameters)."""
    z = z.float() * z.float().square().mean(1, keepdim=True).rsqrt()
    return torch.special.ndtr(z[:, : len(PARAMETERS)])


def mixed_latents(numbers: Tensor, randomness: torch.Generator) -> tuple[Tensor, Tensor]:
    """z for the coarse layers and z for the fine ones: for half of the faces one and the same, for
    the others each says only what its layers are to draw, and something else besides."""
    split, half = len(SHAPE), len(numbers) // 2
    other = torch.rand(numbers.shape, generator=randomness)
    coarse = torch.cat([numbers[:, :split], other[:, split:]], dim=1)
    fine = torch.cat([other[:, :split], numbers[:, split:]], dim=1)
    whole = latents_of(numbers, randomness)
    coarse, fine = latents_of(coarse, randomness), latents_of(fine, randomness)
    return torch.cat([whole[:half], coarse[half:]]), torch.cat([whole[:half], fine[half:]])


@torch.no_grad()
def bend_mapping(mapping: StyleMapping) -> None:
    """Begin with a w that bends at several places of every number, three of an outline's and seven
    of a colour's: each style is then a sum of curves, one a number, from the first step on."""
    wide, rows = CONFIG.w_dim, list[tuple[int, float, float]]()
    for column, name in enumerate(PARAMETERS):
        bends, slope = (3, 1.0) if name in SHAPE else (7, 2.0)
        for k in range(bends):
            at = float(torch.special.ndtri(torch.tensor((k + 0.5) / bends)))
            rows.append((column, slope if k % 2 == 0 else -slope, at))
    weight, bias = torch.zeros(wide, CONFIG.z_dim), torch.zeros(wide)
    for row, (column, slope, at) in enumerate(rows[:wide]):
        weight[row, column], bias[row] = slope, -slope * at
    first, *others = (mapping.get_submodule(f"fc{k}") for k in range(CONFIG.mapping_layers))
    assert isinstance(first, Linear)
    first.weight.copy_(weight / first.gain)
    first.bias.copy_(bias / first.multiplier)
    for layer in others:
        assert isinstance(layer, Linear)
        passing = torch.eye(wide) / math.sqrt(2) + 0.02 * torch.randn(wide, wide)
        layer.weight.copy_(passing / layer.gain)


def attention_of(points: Tensor, side: int) -> Tensor:
    """Weights of pixels (n, 1, side, side), of mean 1: small things of a face count more."""
    grid = (torch.arange(32, device=points.device) + 0.5) * 4
    places = points[:, WATCHED]
    across = torch.exp(-((places[:, :, 0, None] - grid) ** 2) / 72)
    down = torch.exp(-((places[:, :, 1, None] - grid) ** 2) / 72)
    near = (down[:, :, :, None] * across[:, :, None, :]).amax(dim=1, keepdim=True)
    weights = 1 + 3 * near
    weights = weights / weights.mean(dim=(2, 3), keepdim=True)
    return F.interpolate(weights, size=(side, side), mode="bilinear")


def difference(drawn: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """L1 and L2 of pixels; L1 of what is finer than 4 of them, and of what is coarser than 8."""
    error = drawn - wanted
    fine = error - F.interpolate(F.avg_pool2d(error, 4), scale_factor=4, mode="bilinear")
    coarse = F.avg_pool2d(error, 8).abs().mean()
    pixels = error.abs() + 0.7 * fine.abs() + error.square()
    return (weights * pixels).mean() + coarse


@dataclass
class Training:
    """What a killed run goes on from. spent: seconds, of all runs."""

    model: StyleGAN2
    averaged: StyleGAN2
    optimiser: torch.optim.Adam
    index: int = 0
    spent: float = 0.0
    randomness: torch.Generator = field(default_factory=torch.Generator)

    @classmethod
    def new(cls, device: str, seed: int) -> Training:
        torch.manual_seed(seed)
        model = StyleGAN2(CONFIG)
        bend_mapping(model.mapping)
        with torch.no_grad():
            for block in model.synthesis.blocks(64, SIDE):  # what grows later begins with nothing
                block.torgb.weight.zero_()
        model = model.to(device, memory_format=torch.channels_last).train()
        model.synthesis.compute = half_precision(torch.device(device)) or torch.float32
        optimiser = torch.optim.Adam(model.parameters(), lr=0.0, betas=(0.9, 0.99))
        found = cls(model, copy.deepcopy(model).requires_grad_(False), optimiser)
        found.randomness.manual_seed(seed)
        return found

    def save(self, path: Path) -> None:
        parts = {n: getattr(self, n).state_dict() for n in ("model", "averaged", "optimiser")}
        randomness = self.randomness.get_state()
        save({**parts, "index": self.index, "spent": self.spent, "rng": randomness}, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in ("model", "averaged", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.index, self.spent = state["index"], state["spent"]
        self.randomness.set_state(state["rng"])

    def step(self, faces: Faces, side: int, rate: float) -> float:
        """One step on these faces at a resolution; the loss."""
        device = self.model.device
        z = torch.cat(mixed_latents(faces.numbers, self.randomness)).to(device)
        coarse, fine = self.model.mapping(z).chunk(2)
        depth = CONFIG.num_ws
        ws = torch.stack([coarse] * COARSE + [fine] * (depth - COARSE), dim=1)
        shaken = torch.randn(ws.shape, generator=self.randomness).to(device)
        ws = ws + 0.04 * ws.detach().std() * shaken  # a w a layer may stray a little
        drawn = painted(self.model, ws, side)
        wanted = faces.shown(device, side)
        loss = difference(drawn, wanted, attention_of(faces.points.to(device), side))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.index += 1
        keep = min(0.996, self.index / (self.index + 20))
        with torch.no_grad():
            mine, theirs = list(self.averaged.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(mine, theirs, 1 - keep)
        return float(loss.detach())


def phase(share: float) -> tuple[int, bool]:
    """The resolution at a share of the time, and whether all faces look alike."""
    return next((side, plain) for start, side, plain in reversed(PHASES) if share >= start)


def painted(model: StyleGAN2, ws: Tensor, side: int) -> Tensor:
    """The picture as it stands after the block of that resolution; no noise is ever added."""
    drawn = model.synthesis.begin(ws, side, model.synthesis.plain(ws, "none")).rgb
    assert drawn is not None
    return drawn.float()


@torch.no_grad()
def drawn_by(model: StyleGAN2, numbers: Tensor, side: int = SIDE) -> Tensor:
    """What a generator draws of faces, whole latents, in [-1, 1]."""
    z = latents_of(numbers, torch.Generator().manual_seed(1))
    ws = model.latents(z)
    return torch.cat([painted(model, part, side) for part in ws.split(32)]).clamp(-1, 1).cpu()


def train(options: argparse.Namespace) -> None:
    held_out = Faces.of([drawn_faces(range(HELD_OUT, HELD_OUT + 32))])
    training, state = Training.new(options.device, options.seed), options.runs / "generator.pt"
    if state.exists():
        training.load(state)
        print(f"going on from step {training.index}", flush=True)
    last, smooth, faces, now = time.monotonic(), 0.0, None, (0, False)
    while (share := training.spent / (60 * options.minutes)) < 1:
        if faces is None or phase(share) != now or training.index % 400 == 0:
            now = side, plain = phase(share)
            faces = Faces.read(options.data / ("plain" if plain else "drawn"))
        rate = options.rate * min(1.0, (training.index + 1) / 60) * decay(share)
        count = options.batch * (2 if side < 64 else 1)
        loss = training.step(faces.draw(count, training.randomness), side, rate)
        smooth = 0.98 * smooth + 0.02 * loss if smooth else loss
        passed, last = time.monotonic() - last, time.monotonic()
        training.spent += passed
        if training.index % 200 == 0:
            training.save(state)
            few = faces.take(torch.arange(32)) if plain else held_out
            drawn = drawn_by(training.averaged, few.numbers, side)
            found = float(psnr(drawn, few.shown(side=side)).mean())
            print(
                f"{training.index} {share:.3f} of the time, {side} px, {'one look, ' * plain}"
                f"loss {smooth:.4f}, {found:.2f} dB",
                flush=True,
            )
    training.save(state)


def decay(share: float) -> float:
    """The learning rate's share: level, then half a cosine down over the last 40%."""
    return 0.5 + 0.5 * math.cos(math.pi * min(max(share - 0.6, 0.0) / 0.4, 1.0))


# --- the landmark finder ------------------------------------------------------------------------


def moved(faces: Faces, randomness: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures in [-1, 1] and points (n, k, 3), all turned, scaled and shifted a little, some
    blurred: a generator's faces are not as sharp as the world's."""
    count = len(faces.pictures)
    turn, size, right, down, blur = (torch.rand(count, generator=randomness) for _ in range(5))
    angle, scale = 0.3 * (turn - 0.5), 0.9 + 0.2 * size
    a, b = scale * angle.cos(), scale * angle.sin()
    shift = torch.stack([right, down], dim=1) * 0.24 - 0.12
    matrix = torch.stack([torch.stack([a, -b], 1), torch.stack([b, a], 1)], dim=1)  # out -> in
    grid = F.affine_grid(torch.cat([matrix, shift[:, :, None]], 2), [count, 3, SIDE, SIDE], False)
    pictures = F.grid_sample(faces.shown(), grid, padding_mode="border", align_corners=False)
    small = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
    pictures = torch.where((blur < 0.4)[:, None, None, None], small, pictures)
    places = faces.points[..., :2] / SIDE * 2 - 1 - shift[:, None]
    places = torch.linalg.solve(matrix[:, None], places[..., None])[..., 0]
    places = (places + 1) / 2 * SIDE
    return pictures, torch.cat([places, faces.points[..., 2:]], dim=2)


def train_finder(options: argparse.Namespace) -> None:
    """The finder's weights, measured on held-out renders, straight into the package."""
    faces, state = Faces.read(options.data / "wide"), options.runs / "finder.pt"
    torch.manual_seed(options.seed)
    network = FinderNetwork(toybox.FACE_POINTS).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=0.01)
    index, spent, last = 0, 0.0, time.monotonic()
    if state.exists():
        kept = torch.load(state, weights_only=True)
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        index, spent = kept["index"], kept["spent"]
    while (share := spent / (60 * options.minutes)) < 1:
        randomness = torch.Generator().manual_seed(options.seed * 1_000_000 + index)
        pictures, points = moved(faces.draw(2 * options.batch, randomness), randomness)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        half = half_precision(torch.device("cpu")) is not None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = finder_loss(network.train(), pictures, points)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (index + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        index, now = index + 1, time.monotonic()
        spent, last = spent + now - last, now
        if index % 100 == 0:
            parts = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            save({**parts, "index": index, "spent": spent}, state)
            print(f"{index} {share:.3f} of the time, loss {float(loss.detach()):.3f}", flush=True)
    held_out = Faces.of([drawn_faces(range(HELD_OUT, HELD_OUT + 250), "wide")])
    errors = landmark_errors(LandmarkFinder(network), held_out.shown(), held_out.points)
    figures = {"mean error": float(errors.mean()), "median error": float(errors.median())}
    figures |= {"within 2 px": float((errors < 2).float().mean()), "pictures": 250.0}
    print(figures, flush=True)
    save_finder(network, options.out, figures)


# --- into the package ---------------------------------------------------------------------------

CARD = """# toybox-gan

A StyleGAN2 of toy faces, {parameters:,} parameters, {side} pixels, W of {w_dim} numbers; and a
finder of {points} landmarks in such faces. `understudy drag` and `understudy project` take it by
default. Trained from scratch by `training/build_toybox_gan.py` on {faces} renders of the toy world
and as many small ones: {steps} steps of {batch} faces (twice as many at 32 pixels), in
{minutes:.0f} minutes on a shared CPU core. Shipped in half precision.

It was not trained against an adversary. The world knows the face that every picture shows, so the
first {numbers} coordinates of z, through the normal distribution, are the numbers of a face
(`understudy.toybox.Face`: head, mouth, eyes, ears, snout, colours, light), within narrower ranges
than the world's (`RANGES` in the script), and the generator learnt to draw that face. Layers 0 to
{last_coarse} take outlines, those above colours and light: each w was often mixed from two faces
in training. There is no chance in a picture beside z: noise is off.

It draws these toys and nothing else. Figures, printed by `python -m training.build_toybox_gan
measure`:

| | |
| --- | --- |
{rows}
"""


def pack(options: argparse.Namespace) -> None:
    """The averaged weights, in half precision, as a generator's folder in the package."""
    training = Training.new("cpu", options.seed)
    training.load(options.runs / "generator.pt")
    model = training.averaged
    z = torch.randn(10_000, CONFIG.z_dim, generator=torch.Generator().manual_seed(options.seed))
    model.mapping.w_avg.copy_(model.mapping(z).mean(dim=0))
    for name, buffer in model.named_buffers():
        if name.endswith("noise_const"):
            buffer.zero_()  # never looked at
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    made = {"script": "training/build_toybox_gan.py", "steps": training.index}
    save_generator(options.out, CONFIG, tensors, {**made, "seconds": round(training.spent)})
    card(options, {})


def card(options: argparse.Namespace, figures: dict[str, float]) -> None:
    """README.md beside the weights."""
    model = load_generator(options.out, device="cpu")
    source = json.loads((options.out / "generator.json").read_text())["source"]
    text = CARD.format(
        parameters=sum(weight.numel() for weight in model.parameters()),
        side=SIDE, w_dim=CONFIG.w_dim, points=len(toybox.FACE_POINTS),
        faces=len(Faces.read(options.data / "drawn").numbers), batch=options.batch,
        steps=source["steps"],
        minutes=source["seconds"] / 60, numbers=len(PARAMETERS), last_coarse=COARSE - 1,
        rows="\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items()),
    )  # fmt: skip
    (options.out / "README.md").write_text(text)


def measure(options: argparse.Namespace) -> None:
    """What the packed generator and finder are worth, into the model card; and 64 of its faces."""
    model, finder = load_generator(options.out, device="cpu"), load_finder(options.out)
    recogniser, count = load_recogniser(), options.pictures
    held_out = Faces.of([drawn_faces(range(HELD_OUT, HELD_OUT + count // 5))])
    drawn = drawn_by(model, held_out.numbers)
    redrawn = float(psnr(drawn, held_out.shown()).mean())
    figures = {f"{len(drawn)} held-out faces redrawn, dB": redrawn}
    for name, pictures in (("renders", held_out.shown()), ("drawn faces", drawn)):
        errors = landmark_errors(finder, pictures, held_out.points)
        figures[f"landmarks in {name}, mean error, px"] = float(errors.mean())
        figures[f"landmarks in {name}, median error, px"] = float(errors.median())
    true = Faces.read(options.data / "drawn")
    parts = [true.take(torch.arange(k * count, (k + 1) * count)) for k in (0, 1)]
    one, other = (trunk_features(recogniser, part.shown().split(32)) for part in parts)
    seen = trunk_features(recogniser, drawn_pictures(model, range(count)))
    figures[f"FID of {count} drawn faces to {count} renders"] = frechet_distance(seen, one)
    figures[f"FID of {count} other renders to the same"] = frechet_distance(other, one)
    lengths = path_lengths(model, RecogniserFeatures(recogniser), count // 5)
    figures[f"path length in W, mean of {len(lengths)}"] = float(lengths.mean())
    figures["path length in W, median"] = float(lengths.median())
    figures["path length in W, 95 of 100 below"] = float(lengths.quantile(0.95))
    print(json.dumps(figures, indent=1), flush=True)
    card(options, figures)
    faces = torch.cat(list(drawn_pictures(model, range(64))))
    rows = torch.cat([torch.cat(list(row), dim=2) for row in faces.split(8)], dim=1)
    write_picture(options.runs / "sheet.png", rows[None], Recipe(command="sheet").to_text())


def main() -> None:
    stages = {
        "faces": render_faces, "train": train, "finder": train_finder, "pack": pack,
        "measure": measure,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("stage", choices=tuple(stages))
    parser.add_argument("--data", type=Path, default=Path("build/toybox_faces"))
    parser.add_argument("--runs", type=Path, default=Path("build/toybox_gan"), help="for resuming")
    parser.add_argument("--out", type=Path, default=BUILT_IN, help="where the weights go")
    parser.add_argument("--count", type=int, default=4000, help="faces to render")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-2)
    parser.add_argument("--pictures", type=int, default=1250, help="a side of the FID")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    stages[options.stage](options)


if __name__ == "__main__":
    main()
