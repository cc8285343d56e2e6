"""Which model, and on what: settings of every verb that uses one. Free of torch."""

from __future__ import annotations

import dataclasses

from understudy.settings.knobs import SWITCH, Settings, knob

DTYPES = ("float32", "float16", "bfloat16")
AUTO = "auto"
QUANTISED = ("int8", "nf4")  # of flow transformers


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Which model, and on what: the same for every command that uses one."""

    model: str = knob(
        "toybox", "built-in name (toybox, toybox-flow), folder, checkpoint file or hub id"
    )
    device: str = knob(
        "auto", "where to run: auto, cpu, cuda, cuda:1 or mps; auto uses a GPU if there is one"
    )
    dtype: str = knob(
        AUTO,
        "precision of the weights; auto: float32 on a CPU, what suits the command on a GPU; int8 "
        "and nf4: flow transformers only",
        choices=(AUTO, *DTYPES, *QUANTISED),
    )
    compile: str = knob(
        AUTO,
        "compile the network with torch.compile; auto: on a GPU, in jobs long enough to gain from "
        "it, while shorter jobs replay CUDA graphs; --no-compile: neither",
        choices=SWITCH,
        switch=True,
    )
