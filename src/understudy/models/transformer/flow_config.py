"""The flow schedule of a model folder, from scheduler/scheduler_config.json.

What the configuration says of the model (shift, dynamic shift, terminal) is honoured as diffusers'
FlowMatchEulerDiscreteScheduler reads it, or refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from understudy.diffusion.flow import DynamicShift, EmpiricalShift, FlowSchedule
from understudy.errors import ModelError
from understudy.models.family import Family
from understudy.models.folder import read_json
from understudy.models.network_configs import Check, maybe, number, one_of, whole

FILE = "scheduler_config.json"
SWITCH = maybe(one_of(True, False))
SHIFT = maybe(number(1e-3, 1e3))
USED: dict[str, Check] = {
    "num_train_timesteps": whole(2, 10_000), "shift": number(1e-3, 1e3),
    "use_dynamic_shifting": SWITCH, "base_shift": SHIFT, "max_shift": SHIFT,
    "base_image_seq_len": whole(1, 2**20), "max_image_seq_len": whole(2, 2**20),
    "shift_terminal": maybe(number(0, 0.9)),
    "time_shift_type": one_of("exponential", "linear"),
}  # fmt: skip
# Other grids of sigmas, and noise in every step: not the schedule that the model is sampled with.
OFF = ("invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
       "stochastic_sampling")  # fmt: skip


def load_flow_schedule(folder: Path, family: Family, cells_per_token: int) -> FlowSchedule:
    """The schedule of a folder. cells_per_token: latent cells in one image token.

    Raises ModelError, naming the key, for a value that is out of bounds or not supported.
    """
    file = folder / "scheduler" / FILE
    told = read_json(file)
    kind = str(told.get("_class_name", "FlowMatchEulerDiscreteScheduler"))
    if not kind.startswith("FlowMatch"):
        raise ModelError(
            f"{file} is that of a {kind[:60]!r}. {family.name} is a rectified flow: wanted "
            "FlowMatchEulerDiscreteScheduler."
        )
    used: dict[str, Any] = {key: told[key] for key in USED if key in told}
    for key, value in used.items():
        if not USED[key](value):
            raise ModelError(
                f"{file} says {key} = {value!r:.60}, which is out of bounds or not supported."
            )
    for key in OFF:
        if told.get(key):
            raise ModelError(f"{file} says {key} = {told[key]!r:.60}, which is not supported.")
    shift = dynamic_shift(used, family) if used.get("use_dynamic_shifting") else used.get("shift")
    return FlowSchedule(
        shift=1.0 if shift is None else shift,
        grid=family.grid,
        cells_per_token=cells_per_token,
        terminal=used.get("shift_terminal") or None,
        trained_steps=int(used.get("num_train_timesteps", 1000)),
    )


def dynamic_shift(used: dict[str, Any], family: Family) -> DynamicShift | EmpiricalShift:
    """The shift that grows with the picture, as the family's pipeline computes it."""
    if family.by_steps:
        return EmpiricalShift()
    first, last = used.get("base_image_seq_len", 256), used.get("max_image_seq_len", 4096)
    if first >= last:
        raise ModelError(f"{FILE}: base_image_seq_len {first} is not below {last}.")
    base, most = used.get("base_shift"), used.get("max_shift")
    return DynamicShift(
        base_shift=0.5 if base is None else base,
        max_shift=family.max_shift if most is None else most,
        base_tokens=first,
        max_tokens=last,
        kind=used.get("time_shift_type", "exponential"),
    )
