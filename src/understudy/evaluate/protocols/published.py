"""The papers' own numbers, to stand beside ours: other data, other models, the same measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.evaluate.report import Table
from understudy.evaluate.statistics import Estimate

DREAMBOOTH = (
    Table(
        "The paper's table 1 (30 subjects, 25 prompts; Imagen and Stable Diffusion)",
        ("", "DINO", "CLIP-I", "CLIP-T"),
        (
            ("real images", "0.774", "0.885", "-"),
            ("DreamBooth, Imagen", "0.696", "0.812", "0.306"),
            ("DreamBooth, Stable Diffusion", "0.668", "0.803", "0.305"),
            ("Textual Inversion, Stable Diffusion", "0.569", "0.780", "0.255"),
        ),
    ),
    Table(
        "The paper's table 3 (Imagen, 15 subjects; PRES: lower is better)",
        ("", "PRES", "DIV", "DINO", "CLIP-I", "CLIP-T"),
        (
            ("with prior preservation", "0.493", "0.391", "0.684", "0.815", "0.308"),
            ("without", "0.664", "0.371", "0.712", "0.828", "0.306"),
        ),
    ),
    Table(
        "The paper's table 4 (class noun, 5 subjects)",
        ("", "DINO", "CLIP-I"),
        (
            ("correct noun", "0.744", "0.853"),
            ("no noun", "0.303", "0.607"),
            ("wrong noun", "0.454", "0.728"),
        ),
    ),
)


@dataclass(frozen=True)
class Ordering:
    """What a paper found greater than what: two of our methods, and the paper's numbers for them.

    ours: the names of our columns that measure the same, the first that is there counts.
    """

    table: str
    measure: str
    ours: tuple[str, ...]
    greater: str
    smaller: str
    paper: tuple[float, float]


FIDELITY, PROMPT = ("DINO", "identity"), ("CLIP-T", "prompt words")
PRES, DIV = ("PRES (DINO)", "PRES (identity)"), ("class DIV", "class DIV (identity)")
ORDERINGS = (
    Ordering("1", "DINO", FIDELITY, "real-images", "dreambooth", (0.774, 0.668)),
    Ordering("1", "DINO", FIDELITY, "dreambooth", "textual-inversion", (0.668, 0.569)),
    Ordering("1", "CLIP-T", PROMPT, "dreambooth", "textual-inversion", (0.305, 0.255)),
    Ordering("3", "PRES", PRES, "without-prior", "dreambooth", (0.664, 0.493)),
    Ordering("3", "DIV", DIV, "dreambooth", "without-prior", (0.391, 0.371)),
    Ordering("3", "DINO", FIDELITY, "without-prior", "dreambooth", (0.712, 0.684)),
    Ordering("4", "DINO", FIDELITY, "dreambooth", "wrong-noun", (0.744, 0.454)),
)


def orders(columns: Mapping[str, Mapping[str, Estimate]]) -> Table | None:
    """The papers' orders beside ours: same, another, or too near to tell (intervals overlap).

    columns: name -> method -> estimate. None where no order can be looked at.
    """
    lines: list[tuple[str, ...]] = []
    for order in ORDERINGS:
        column = next((columns[name] for name in order.ours if name in columns), {})
        a, b = (column.get(name) for name in (order.greater, order.smaller))
        if a is None or b is None or not (a.count and b.count):
            continue
        sure = a.low > b.high or b.low > a.high
        verdict = ("same" if a.mean > b.mean else "another") if sure else "too near to tell"
        paper, here = (f"{x:.3f} > {y:.3f}" for x, y in (order.paper, (a.mean, b.mean)))
        here = here if a.mean > b.mean else here.replace(">", "<")
        names = f"{order.greater} > {order.smaller}"
        lines.append((f"table {order.table}, {order.measure}", names, paper, here, verdict))
    heads = ("", "the paper's order", "paper", "here, on other data", "here")
    return Table("The paper's orders, looked for here", heads, lines) if lines else None
