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
    device: str = knob("auto", "auto, cpu, cuda, cuda:1 or mps; auto uses a GPU if there is one")
    dtype: str = knob(
        AUTO,
        "precision of the weights; auto is float32 on a CPU and what suits the command on a GPU; "
        "int8 and nf4 are for flow transformers",
        choices=(AUTO, *DTYPES, *QUANTISED),
    )
    compile: str = knob(
        AUTO,
        "compile the network with torch.compile; auto does so on a GPU where the job is long "
        "enough for it to pay, and replays CUDA graphs elsewhere; --no-compile does neither",
        choices=SWITCH,
        switch=True,
    )
