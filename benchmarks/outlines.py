"""How far a new toy leaves the old one's outline where it takes its place and pose.

    scripts/bench outlines [--first 64] [--limit 48]

Of SwapBench's right answers, by whether both toys are of one class: the share of the new toy's area
that lies more than 2 and 6 pixels (of 128) outside the old one's mask. swap/limits.py rests on it.
The cases from 64 on are not among the 64 that results are published of.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from understudy.evaluate import swapbench
from understudy.evaluate.truth import shown
from understudy.pictures.tensors import grown

SIDE, RIMS = 128, (2, 6)  # pixels


def outside(number: int) -> tuple[str, list[float]]:
    """What kind of swap a case is, and the shares of the right answer's area outside each rim."""
    case = swapbench.case(number)
    old, new = ((shown(scene, SIDE).mask > 0.5).float() for scene in (case.source, case.right))
    same = case.noun == case.subject.identity.class_name
    beyond = [float((new * (1 - grown(old, rim))).sum() / new.sum()) for rim in RIMS]
    return "same class" if same else "other class", beyond


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=64)
    parser.add_argument("--limit", type=int, default=48)
    wish = parser.parse_args()
    found: dict[str, list[list[float]]] = defaultdict(list)
    for number in range(wish.first, wish.first + wish.limit):
        kind, beyond = outside(number)
        found[kind].append(beyond)
    for kind, rows in sorted(found.items()):
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        told = ", ".join(
            f"{mean:.1%} over {rim} pixels outside" for mean, rim in zip(means, RIMS, strict=True)
        )
        print(f"{kind}, {len(rows)} cases: {told}")


if __name__ == "__main__":
    main()
