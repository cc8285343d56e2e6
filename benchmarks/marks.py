"""What the marks of a picture cost, and what the watermark survives.

    scripts/bench marks [--limit N] [--photos FOLDER]

Toy scenes of 512 x 512 pixels, or the photos of a folder, fitted to that. Overhead is a result with
all marks (recipe, source type, watermark, C2PA manifest) against one with watermark and manifest
switched off; the median of three writings. A watermark makes flat areas of rendered scenes harder
to compress as PNG; photos are noisy anyway. False positives: a picture without a mark passes the
CRC by chance once in 2^31 readings, as it is or mirrored.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from understudy.pictures import watermark, xmp
from understudy.pictures.marks import Origin, read_marks, write_result
from understudy.pictures.metrics import psnr
from understudy.pictures.photo import Pixels, fit, read_photo
from understudy.pictures.recipe import Recipe, ingredient
from understudy.pictures.tensors import to_tensor
from understudy.settings.marks import MarkSettings

SIDE = 512
SUFFIXES = (".png", ".jpg", ".webp")
OFF = MarkSettings(c2pa="off", watermark="off")


def pictures(folder: Path | None, limit: int) -> Iterator[Pixels]:
    """Photos of a folder, or rendered scenes."""
    if folder is not None:
        files = sorted(file for file in folder.rglob("*") if file.suffix in (*SUFFIXES, ".jpeg"))
        for file in files[:limit]:
            yield fit(read_photo(file).pixels, (SIDE, SIDE))
        return
    from understudy.toybox import render, sample_scene

    for seed in range(limit):
        yield render(sample_scene(seed), (SIDE, SIDE)).picture


def reencoded(pixels: Pixels, format: str, **options: int) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format, **options)
    return np.asarray(Image.open(stream).convert("RGB"))


def smaller(pixels: Pixels, factor: float = 0.75) -> Pixels:
    side = round(SIDE * factor)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "PNG": lambda pixels: reencoded(pixels, "PNG"),
    "JPEG q80": lambda pixels: reencoded(pixels, "JPEG", quality=80),
    "0.75x": smaller,
    "0.75x, then JPEG q80": lambda pixels: reencoded(smaller(pixels), "JPEG", quality=80),
    "WebP q80": lambda pixels: reencoded(pixels, "WEBP", quality=80),
}


def survived(pixels: Pixels, number: int) -> dict[str, float]:
    """Share of the message's bits that are read right after each change, and PSNR in dB."""
    marked = watermark.embed(pixels, number)
    sent = watermark._message(number)  # pyright: ignore[reportPrivateUsage]
    found = {
        name: float(((watermark.soft_bits(change(marked)) < 0) == sent).mean())
        for name, change in CHANGES.items()
    }
    return {**found, "PSNR": float(psnr(to_tensor(marked), to_tensor(pixels)))}


def overhead(pixels: Pixels, photo: Path, suffix: str) -> tuple[float, float, float, float]:
    """Bytes and milliseconds of the manifest, and of all marks, in a file of that kind."""
    files = (ingredient("photo", photo),)
    recipe = Recipe(command="swap", arguments={"prompt": "a cat"}, ingredients=files, seed=3)
    origin, sizes, times = Origin(xmp.COMPOSITE, photo), list[int](), list[float]()
    for settings in (MarkSettings(watermark="off"), MarkSettings(), OFF):
        file, spent = photo.with_name(f"out{suffix}"), list[float]()
        for _ in range(3):
            began = time.process_time()
            write_result(file, pixels, recipe, origin, settings)
            spent.append(time.process_time() - began)
        assert not read_marks(file).findings
        sizes.append(file.stat().st_size)
        times.append(median(spent))
    manifest = sizes[0] - sizes[2], 1000 * (times[0] - times[2])
    return *manifest, sizes[1] - sizes[2], 1000 * (times[1] - times[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--photos", type=Path)
    given = parser.parse_args()
    rows, false = list[dict[str, float]](), 0
    costs: dict[str, list[tuple[float, ...]]] = {suffix: [] for suffix in SUFFIXES}
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        for number, pixels in enumerate(pictures(given.photos, given.limit)):
            rows.append(survived(pixels, 0xC0FFEE00 + number))
            false += watermark.read(pixels) is not None
            Image.fromarray(pixels).save(photo)
            for suffix in SUFFIXES:
                costs[suffix].append(overhead(pixels, photo, suffix))
    print(f"{len(rows)} pictures of {SIDE} x {SIDE} pixels")
    for name in CHANGES:
        shares = [row[name] for row in rows]
        print(
            f"watermark after {name}: bits {np.mean(shares):.2%}, worst picture {min(shares):.2%}"
        )
    ratios = [row["PSNR"] for row in rows]
    print(f"watermark: PSNR {np.mean(ratios):.1f} dB, worst {min(ratios):.1f} dB")
    print(f"marks found in pictures without one: {false}; by construction 2^-31 = {2**-31:.1e}")
    for suffix, found in costs.items():
        size, spent, whole, all_spent = np.median(np.array(found), axis=0)
        worst = max(one for one, *_ in found)
        print(
            f"{suffix}: manifest {size:.0f} bytes (largest {worst:.0f}), {spent:.1f} ms; "
            f"all marks {whole:.0f} bytes, {all_spent:.1f} ms"
        )


if __name__ == "__main__":
    main()
