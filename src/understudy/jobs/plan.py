"""What a run needs, before anything is loaded: memory, evaluations, licence of the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.jobs.request import Job
from understudy.settings import RunSettings

GB = 1e9


def needs(run: RunSettings, values: Mapping[str, Any], job: Job | None = None) -> dict[str, Any]:
    """Facts of a run as JSON values. values: the settings and inputs of the verb. job: decides the
    precision that suits the run; None: one of `generate`.

    Evaluations are counted for a run of `steps` over `count` pictures: two rows per step where the
    model is guided by an unconditional row and guidance is not 1, and one more where `pag_scale` is
    not 0. Raises ModelError for a folder that is damaged.
    """
    from understudy.jobs.execution import suited
    from understudy.models.plan import plan_of
    from understudy.models.registry import here

    run = suited(run, job or Job(verb="generate"))
    plan = plan_of(run.model, here(run.model), run.dtype)
    steps, pictures = int(values.get("steps") or 0), int(values.get("count") or 1)
    parts = 2 if plan.guided and values.get("guidance", 1) != 1 else 1
    parts += values.get("pag_scale", 0) != 0
    rows = steps * parts * pictures
    return {
        "model": run.model,
        "family": plan.family,
        "licence": plan.licence,
        "gated": plan.gated,
        "train_on": plan.train_on,
        "weights": {part: count for part, count in plan.weights.items()},
        "dtype": run.dtype,
        "memory_gb": round(plan.memory / GB, 2),
        "work_gb": round(plan.work * parts / GB, 2),
        "tokens": list(plan.tokens),
        "row_tmac": round(plan.row / 1e12, 6),
        "rows": rows,
        "tmac": round(plan.row * rows / 1e12, 3),
    }


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    weights = ", ".join(f"{part} {_count(count)}" for part, count in found["weights"].items())
    licence = found["licence"] or "not known here: see the model's card"
    gated = "; the hub asks you to accept it first" if found["gated"] else ""
    lines = [
        f"model        {found['model']} ({found['family']})",
        f"licence      {licence}{gated}",
        f"weights      {weights or 'not known before the download'}",
        f"memory       {found['memory_gb']} GB of weights in {found['dtype']}, about "
        f"{found['work_gb']} GB of activations",
        f"evaluations  {found['rows']} for one pass of --steps (inversion, search and training "
        "cost more)",
    ]
    if found["row_tmac"]:
        lines[-1] += f", {_macs(found['row_tmac'])} each, {_macs(found['tmac'])} in all"
    if found["train_on"]:
        lines.append(
            f"learning     not on this model, which is step-distilled: {found['train_on']}"
        )
    return lines


def _count(weights: float) -> str:
    return f"{weights / 1e9:.2f} B" if weights >= 1e8 else f"{weights / 1e6:.3g} M"


def _macs(tera: float) -> str:
    """Multiply-accumulate operations, given in units of 1e12."""
    return f"{tera:.1f} TMAC" if tera >= 1 else f"{1000 * tera:.3g} GMAC"
