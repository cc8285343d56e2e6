"""How near pictures of toybox-gan come to the renders it learnt from, as FID sees them.

    scripts/bench gan [--count 5000]

As many samples (truncation 1) as renders, and the floor: renders against other renders, none of
which it was trained on. Features are the scoring network's. Kept in chunks: killed, it
goes on where it stopped, and a larger count later draws only what is missing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.real_faces import ROOT, building
from benchmarks.rows import RESULTS, page
from understudy.evaluate.gan_scores import drawn_pictures, trunk_features
from understudy.generators.folder import load_generator
from understudy.pictures.metrics import frechet_distance
from understudy.vision.examiner import load_scorer
from understudy.vision.recogniser import Recogniser

CHUNK, NEW = 125, 20_000_000  # pictures; the first seed of renders
RESAMPLES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="pictures a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "measured" / "gan_fid")
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    model, recogniser, script = (
        load_generator("toybox-gan", device="cpu"),
        load_scorer(),
        building(),
    )

    def renders(seeds: range) -> Tensor:
        faces = script.Faces.of([script.drawn_faces(range(NEW + seeds.start, NEW + seeds.stop))])
        return trunk_features(recogniser, faces.shown().split(32))

    def samples(seeds: range) -> Tensor:
        return trunk_features(recogniser, drawn_pictures(model, seeds))

    count = max(CHUNK, wish.count // CHUNK * CHUNK)
    mark = f"{model.fingerprint[:8]}_{_mark(recogniser)}"
    drawn = kept(wish.store / f"samples_{mark}", samples, 0, count)
    one = kept(wish.store / f"renders_{_mark(recogniser)}", renders, 0, count)
    other = kept(wish.store / f"renders_{_mark(recogniser)}", renders, count, 2 * count)
    print(table({"samples to renders": (drawn, one), "other renders to the same": (other, one)}))


def _mark(recogniser: Recogniser) -> str:
    """Tells features of one recogniser from those of another."""
    total = sum(float(p.double().abs().sum()) for p in recogniser.network.parameters())
    return f"{total:.3f}"


def kept(folder: Path, make: Callable[[range], Tensor], first: int, last: int) -> Tensor:
    """Features of pictures `first` to `last`, made where no chunk has them yet."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = list[Tensor]()
    for start in range(first, last, CHUNK):
        final = folder / f"{start:07d}.npy"
        if not final.exists():
            partial = final.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, make(range(start, start + CHUNK)).numpy())
            os.replace(partial, final)
            print(f"{folder.name} {start + CHUNK} of {last}", flush=True)
        parts.append(torch.from_numpy(np.load(final)))
    return torch.cat(parts)


def table(sides: dict[str, tuple[Tensor, Tensor]]) -> str:
    """Write results/gan_fid.json and .md; returns the Markdown.

    Intervals are of halves drawn by lot, without putting back: FID of few pictures is higher, so
    they stand beside FID of a half, not of all.
    """
    randomness, rows = torch.Generator().manual_seed(0), list[dict[str, float | int | str]]()
    for name, (ours, theirs) in sides.items():
        halves = list[float]()
        for _ in range(RESAMPLES):
            some = [x[torch.randperm(len(x), generator=randomness)[: len(x) // 2]] for x in
                    (ours, theirs)]  # fmt: skip
            halves.append(frechet_distance(some[0], some[1]))
        low, middle, high = np.quantile(halves, [0.025, 0.5, 0.975]).tolist()
        rows.append({"": name, "pictures a side": len(ours), "FID": frechet_distance(ours, theirs),
                     "FID of halves": middle, "low": low, "high": high})  # fmt: skip
    intro = ["# FID of toybox-gan, in features of the scoring network", ""]
    intro += ["Renders within the generator's ranges, none of them trained on. FID of halves: "
              f"median and 95 % of {RESAMPLES} halves drawn by lot."]  # fmt: skip
    cells = (
        [r[""], r["pictures a side"], f"{r['FID']:.4f}",
         f"{r['FID of halves']:.4f} [{r['low']:.4f}, {r['high']:.4f}]"]
        for r in rows
    )  # fmt: skip
    heads = ("", "pictures a side", "FID", "FID of halves")
    return page(RESULTS / "gan_fid.json", rows, intro, heads, cells)


if __name__ == "__main__":
    main()
