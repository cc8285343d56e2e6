"""The noise schedule of a model folder, from scheduler/scheduler_config.json.

Every method here samples with DDIM. What the configuration says of the model (betas, prediction
type, zero terminal SNR) and of DDIM's timesteps (spacing, offset) is honoured as diffusers' DDIM
reads it, or refused by name. Options of other solvers (their order, Karras sigmas) are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from understudy.diffusion.ddpm import PREDICTIONS, SPACINGS, DDPMSchedule
from understudy.errors import ModelError
from understudy.files.reading import read_json
from understudy.models.network_configs import Check, maybe, number, one_of, whole
from understudy.models.quiet import explained, quietly

FILE = "scheduler_config.json"
TIMESTEPS = 10_000
# The last alpha of a schedule with zero terminal SNR, as diffusers' Euler scheduler has it: with 0
# the clean latents of epsilon cannot be computed. It changes a step by 2e-4 of its size.
ALMOST_ZERO = 2.0**-24
SWITCH = maybe(one_of(True, False))
USED: dict[str, Check] = {
    "num_train_timesteps": whole(2, TIMESTEPS),
    "beta_start": number(0, 1), "beta_end": number(0, 1),
    "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": maybe(lambda value: isinstance(value, list)),
    "set_alpha_to_one": SWITCH, "steps_offset": whole(0, TIMESTEPS),
    "prediction_type": one_of(*PREDICTIONS),
    "rescale_betas_zero_snr": SWITCH,
    "timestep_spacing": one_of(*SPACINGS),
}  # fmt: skip
# Schedulers of DDPM models, whatever solver they stand for. Others are of another noise process.
FAMILIES = ("DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete",
            "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverMultistep",
            "DPMSolverSinglestep", "DPMSolverSDE", "UniPCMultistep", "DEISMultistep")  # fmt: skip
# Keys, and the values that mean "plain"; any other value would change what is sampled.
PLAIN: dict[str, tuple[Any, ...]] = {
    "timestep_type": (None, "discrete"),  # "continuous": EDM
    "sigma_data": (None,),
    "use_flow_sigmas": (None, False),
    "flow_shift": (None, 1, 1.0),
    "shift": (None, 1, 1.0),
}
CLIPPING = {"clip_sample": ("DDIM", "DDPM"), "thresholding": ("DDIM", "DDPM")}


def load_schedule(folder: Path) -> DDPMSchedule:
    """The schedule of a folder, and what its U-Net predicts.

    Raises ModelError, naming the key, for a value that is out of bounds or not supported.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    file = folder / "scheduler" / FILE
    told = read_json(file, error=ModelError)
    if not isinstance(told, dict):
        raise ModelError(f"{file} holds no object of settings. Copy or download it again.")
    config = _checked(file, cast("dict[str, Any]", told))
    kind = str(config.get("prediction_type", "epsilon"))
    if config.get("rescale_betas_zero_snr") and kind == "epsilon":
        raise ModelError(
            f"{file} says rescale_betas_zero_snr with prediction_type epsilon, which does not "
            "determine the picture at the last timestep. Expected v_prediction."
        )
    with quietly(), explained(folder / "scheduler"):
        ddim = cast(Any, DDIMScheduler).from_config(config)
    alphas = ddim.alphas_cumprod
    if config.get("rescale_betas_zero_snr"):
        alphas = alphas.clone()
        alphas[-1] = ALMOST_ZERO
    falling = bool((alphas.diff() <= 0).all()) and bool(alphas.isfinite().all())
    if not falling or not 0 < float(alphas[-1]) <= float(alphas[0]) <= 1:
        raise ModelError(
            f"{file} has betas that are not a valid noise schedule. Download it again."
        )
    offset, to_one = int(ddim.config.steps_offset), bool(ddim.config.set_alpha_to_one)
    spacing = str(ddim.config.timestep_spacing)
    if offset >= len(alphas):
        raise ModelError(f"{file} says steps_offset = {offset} of {len(alphas)} timesteps.")
    return DDPMSchedule(alphas.to(torch.float32), offset, to_one, kind, spacing)


def _checked(file: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are used, each within its bounds; what is not supported is refused by name."""
    kind = str(told.get("_class_name", "DDIMScheduler")).removesuffix("Parallel")
    family = kind.removesuffix("Scheduler").removesuffix("Parallel")
    if family not in FAMILIES:
        raise ModelError(
            f"{file} is for {kind[:60]!r}, whose process is not supported. "
            "Supported: the schedulers of Stable Diffusion 1.x, 2.x and XL (DDIM, PNDM, Euler, "
            "DPM-Solver and the like)."
        )
    if "prediction_type" in told and not USED["prediction_type"](told["prediction_type"]):
        raise ModelError(
            f"{file.parent.parent} predicts {str(told['prediction_type'])[:40]!r}. Supported "
            f"prediction types: {', '.join(PREDICTIONS)}."
        )
    for key, plain in PLAIN.items():
        if key in told and told[key] not in plain:
            raise ModelError(f"{file} says {key} = {told[key]!r:.60}, which is not supported.")
    for key, classes in CLIPPING.items():
        if told.get(key) and family in classes:
            raise ModelError(
                f"{file} says {key} = true, which is not supported: it would clip latents. Set it "
                "to false, as in Stable Diffusion."
            )
    used = {key: told[key] for key in USED if key in told}
    for key, value in used.items():
        if not USED[key](value):
            raise ModelError(
                f"{file} says {key} = {value!r:.60}, which is out of bounds or not supported."
            )
    betas = used.get("trained_betas")
    if betas is not None and not (
        2 <= len(betas) <= TIMESTEPS and all(number(0, 0.999999)(one) for one in betas)
    ):
        raise ModelError(f"{file}: trained_betas must be a list of numbers from 0 to 1.")
    if betas is not None and len(betas) != used.get("num_train_timesteps", 1000):
        raise ModelError(f"{file}: trained_betas and num_train_timesteps differ in length.")
    return used
