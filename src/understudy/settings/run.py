"""Which model, and on what: settings of every verb that uses one. Free of torch."""

from __future__ import annotations

import dataclasses

from understudy.settings.knobs import Settings, knob

DTYPES = ("float32", "float16", "bfloat16")
QUANTISED = ("int8", "nf4")  # of flow transformers


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Which model, and on what: the same for every command that uses one."""

    model: str = knob("toybox", "built-in name, folder, checkpoint file or hub id")
    device: str = knob("auto", "auto, cpu, cuda, cuda:1 or mps; auto uses a GPU if there is one")
    dtype: str = knob(
        "float32",
        "precision of the weights; int8 and nf4 are for flow transformers",
        choices=(*DTYPES, *QUANTISED),
    )
