#!/usr/bin/env python
"""Measure the examiner and the recogniser on held-out renders, side by side.

    python -m training.examiner_measures              # shipped weights, the recogniser's at least
    python -m training.examiner_measures --folder build/examiner/out

Words, points and masks on 600 renders of reserved toys. Identities "told apart": the chance that
two views of one toy score higher than views of two toys, of one class (general), or of equal
colours and pattern with other proportions, or with another class.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.held_out import LOOK_ALIKES, look_alikes, reserved_toys
from training.recogniser_examples import Examples
from training.recogniser_training import accuracy
from understudy.vision import examiner, recogniser
from understudy.vision.recogniser import HEADS, PictureNetwork

TOYS, FAMILIES = 150, 50


def held_out(toys: int = TOYS, families: int = FAMILIES) -> tuple[Examples, Examples]:
    """The 600 renders that words are read from, and the look-alikes; rendered now."""
    return Examples.draw(reserved_toys(toys)), Examples.draw(look_alikes(families))


def figures(network: PictureNetwork, usual: Examples, alike: Examples) -> dict[str, float]:
    """What `accuracy` measures on `usual`, then how well look-alikes are told apart."""
    found = accuracy(network, usual)
    z, groups = identities(network, usual), usual.groups
    look = torch.stack([usual.labels[:, HEADS.index(h)] for h in LOOK], dim=1)
    equal = (look[:, None] == look[None]).all(dim=2) & (groups[:, None] != groups)
    found["told apart, equal colours and pattern, 600"] = told_apart(z, groups, equal)
    z, groups = identities(network, alike), alike.groups
    family, member = groups // LOOK_ALIKES, groups % LOOK_ALIKES
    within = family[:, None] == family
    for name, other in (("other proportions", 1), ("other class", 2)):
        pair = within & (member[:, None] == 0) & (member == other)
        found[f"told apart, {name} alone"] = told_apart(z, groups, pair | pair.T)
    unlike = within & (groups[:, None] != groups)
    found["told apart, look-alikes"] = told_apart(z, groups, unlike)
    return found


LOOK = ("primary", "secondary", "pattern")


@torch.no_grad()
def identities(network: PictureNetwork, examples: Examples) -> Float[Tensor, "n d"]:
    network.eval()
    batches = (examples.take(rows) for rows in torch.arange(len(examples)).split(64))
    return torch.cat([network(batch.pictures, batch.hints())["identity"] for batch in batches])


def told_apart(
    z: Float[Tensor, "n d"], groups: Int[Tensor, " n"], unlike: Bool[Tensor, "n n"]
) -> float:
    """The chance that two views of one toy score higher than a pair of `unlike`."""
    score = z @ z.T
    upper = torch.ones_like(unlike).triu(1)
    same, other = score[upper & (groups[:, None] == groups)], score[upper & unlike]
    return float((same[:, None] > other[None]).float().mean()) if len(other) else float("nan")


def table(columns: dict[str, dict[str, float]]) -> str:
    """Figures side by side, as Markdown."""
    names = list(next(iter(columns.values())))
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    lines += [
        f"| {name} | {' | '.join(f'{column[name]:.3f}' for column in columns.values())} |"
        for name in names
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="of an examiner; default: the shipped one, if any"
    )
    parser.add_argument("--json", action="store_true")
    wish = parser.parse_args()
    networks = {"recogniser": recogniser.load()}
    if wish.folder is not None or examiner.BUILT_IN.exists():
        networks = {"examiner": examiner.load(wish.folder or examiner.BUILT_IN), **networks}
    sets = held_out()
    columns = {name: figures(recogniser.network, *sets) for name, recogniser in networks.items()}
    print(json.dumps(columns, indent=1) if wish.json else table(columns))


if __name__ == "__main__":
    main()
