"""The papers' numbers beside ours, and whether their orderings hold in ours.

Other data, other models, the same measures: what can be compared is which of two is greater.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from understudy.evaluate.report import Table, written
from understudy.evaluate.results import Row, number
from understudy.evaluate.statistics import Estimate, estimate

# A measure of the papers, and our columns that are the same; the first that is there counts.
MEASURES: Mapping[str, tuple[str, ...]] = {
    "DINO": ("DINO", "identity"),
    "CLIP-I": ("CLIP-I", "identity"),
    "CLIP-T": ("CLIP-T", "prompt words"),
    "PRES": ("PRES (DINO)", "PRES (identity)"),
    "DIV": ("DIV", "DIV (DINO)", "DIV (identity)"),
    "class DIV": ("class DIV", "class DIV (DINO)", "class DIV (identity)"),
    "copy score": ("copy score",),
    "seconds to learn": ("seconds to learn",),
}
LEAST = 6  # subjects; of fewer, even all may agree by luck (sign test, 5 %, two-sided)
LOWER = ("PRES", "copy score", "seconds to learn")  # is better


@dataclass(frozen=True)
class Published:
    """A table of a paper: our method's name -> what the paper calls it, and its numbers."""

    title: str
    measures: tuple[str, ...]
    lines: Mapping[str, tuple[str, tuple[float | None, ...]]]


# Ruiz et al. 2023, tables 1, 3 and 4. In table 1 the real photos and Stable Diffusion's lines.
DREAMBOOTH = (
    Published(
        "Fidelity: DreamBooth's table 1 (30 subjects, Stable Diffusion) and ours (other data)",
        ("DINO", "CLIP-I", "CLIP-T"),
        {
            "real-images": ("real images", (0.774, 0.885, None)),
            "dreambooth": ("DreamBooth", (0.668, 0.803, 0.305)),
            "textual-inversion": ("Textual Inversion", (0.569, 0.780, 0.255)),
        },
    ),
    Published(
        "Prior preservation: DreamBooth's table 3 (15 subjects, Imagen) and ours (other data)",
        ("PRES", "DIV", "DINO", "CLIP-I", "CLIP-T"),
        {
            "dreambooth": ("with", (0.493, 0.391, 0.684, 0.815, 0.308)),
            "without-prior": ("without", (0.664, 0.371, 0.712, 0.828, 0.306)),
        },
    ),
    Published(
        "The class noun: DreamBooth's table 4 (5 subjects) and ours (other data)",
        ("DINO", "CLIP-I"),
        {
            "dreambooth": ("correct noun", (0.744, 0.853)),
            "no-noun": ("no noun", (0.303, 0.607)),
            "wrong-noun": ("wrong noun", (0.454, 0.728)),
        },
    ),
)

# Gu et al. 2023, the table of its user study: the share of votes for Photoswap, for neither and for
# prompt-to-prompt with DreamBooth.
PHOTOSWAP = {
    "subject": (46.8, 27.6, 25.6),
    "background": (40.7, 26.6, 32.7),
    "overall": (50.8, 21.2, 28.0),
}
RIVAL = "p2p"


@dataclass(frozen=True)
class Ordering:
    """What a paper found greater than what: two of our methods, in one measure."""

    source: str
    measure: str
    greater: str
    smaller: str


# Han et al. 2023 name no numbers for N: more embeddings keep more of the photo and obey less.
ORDERINGS = (
    Ordering("DreamBooth, table 1", "DINO", "real-images", "dreambooth"),
    Ordering("DreamBooth, table 1", "DINO", "dreambooth", "textual-inversion"),
    Ordering("DreamBooth, table 1", "CLIP-T", "dreambooth", "textual-inversion"),
    Ordering("DreamBooth, table 3", "PRES", "without-prior", "dreambooth"),
    Ordering("DreamBooth, table 3", "DIV", "dreambooth", "without-prior"),
    Ordering("DreamBooth, table 3", "DINO", "without-prior", "dreambooth"),
    Ordering("DreamBooth, table 4", "DINO", "dreambooth", "wrong-noun"),
    Ordering("DreamBooth, table 4", "DINO", "dreambooth", "no-noun"),
    Ordering("DreamBooth, table 4", "DINO", "wrong-noun", "no-noun"),
    Ordering("HiPer, number of tokens", "DINO", "hiper-5", "hiper-1"),
    Ordering("HiPer, number of tokens", "DINO", "hiper-20", "hiper-5"),
    Ordering("HiPer, number of tokens", "CLIP-T", "hiper-1", "hiper-5"),
    Ordering("HiPer, number of tokens", "CLIP-T", "hiper-5", "hiper-20"),
)
Estimates = Callable[[str, str], Estimate]  # of a column and a method


def own(measure: str, columns: Sequence[str]) -> str | None:
    """Which of our columns measures it; None if none does."""
    return next((name for name in MEASURES[measure] if name in columns), None)


def beside(columns: Sequence[str], methods: Sequence[str], found: Estimates) -> list[Table]:
    """The papers' tables with our numbers beside theirs, those of which we have a line."""
    tables: list[Table] = []
    for paper in DREAMBOOTH:
        names = {measure: own(measure, columns) for measure in paper.measures}
        heads = ["", "here"]
        for measure, name in names.items():
            heads += [f"{measure}, paper", f"{name}, here"] if name else [f"{measure}, paper"]
        lines: list[list[str]] = []
        for method, (label, numbers) in paper.lines.items():
            cells = [label, method if method in methods else "not run"]
            for (_, name), value in zip(names.items(), numbers, strict=True):
                cells.append("-" if value is None else f"{value:.3f}")
                cells += [written(found(name, method))] if name else []
            lines.append(cells)
        if any(method in methods for method in paper.lines if method != "real-images"):
            tables.append(Table(paper.title, heads, lines))
    return tables


def orders(rows: Sequence[Row]) -> Table | None:
    """The papers' orders, looked for in ours: does each hold?

    Two methods are compared on the subjects that both have, subject by subject; an order holds, or
    is the other way round, where the 95 % interval of the mean difference leaves zero out and
    there are subjects enough. None where nothing can be compared.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines: list[tuple[str, ...]] = []
    for order in ORDERINGS:
        name = own(order.measure, columns)
        means = [_means(rows, method, name) for method in (order.greater, order.smaller)]
        shared = [subject for subject in means[0] if subject in means[1]]
        if not shared:
            continue
        gaps = [means[0][subject] - means[1][subject] for subject in shared]
        gap, agreeing = estimate(gaps), sum(one > 0 for one in gaps)
        said = f"{order.greater} > {order.smaller} in {name}"
        numbers = " against ".join(f"{sum(m[s] for s in shared) / len(shared):.3f}" for m in means)
        agree = f"{agreeing} of {len(gaps)}"
        lines.append((said, order.source, verdict(gap), numbers, written(gap), agree))
    heads = ("the paper's order", "where", "here, on other data", "means", "difference")
    heads = (*heads, "subjects that agree")
    return Table("The papers' orders, looked for here", heads, lines) if lines else None


def verdict(gap: Estimate) -> str:
    """Of the difference of two that should be above zero."""
    if gap.units < LEAST:
        return f"not decided: fewer than {LEAST} subjects"
    if gap.low > 0:
        return "holds"
    return "does not hold: the other way round" if gap.high < 0 else "not decided"


def _means(rows: Sequence[Row], method: str, column: str | None) -> dict[str, float]:
    """Each subject's mean in a column."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method and column is not None and row.get(column) is not None:
            values.setdefault(row["subject"], []).append(number(row, column))
    return {subject: sum(found) / len(found) for subject, found in values.items()}
