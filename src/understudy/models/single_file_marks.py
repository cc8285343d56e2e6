"""How a single checkpoint file is to be sampled: its header, its marker tensors, its .yaml file.

    v_pred                          predicts velocity (ComfyUI, NoobAI)
    ztsnr                           zero terminal SNR (Lin et al. 2023, arXiv:2305.08891)
    edm_vpred.sigma_max, edm_mean   models of the EDM process: not supported
    modelspec.prediction_type       the header's entry (Stability's model metadata)
    NAME.yaml                       CompVis' and Stability's settings, beside the file

Each of them is honoured or refused by name; where two contradict each other the file is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.errors import ModelError
from understudy.files.reading import read_bytes

GLOBAL_STEP_OF_2_BASE = 875_000
SPECS = ("modelspec.architecture", "modelspec.prediction_type")
SIDECAR = 2**20  # bytes of a .yaml file
EDM = re.compile(r"edm_(vpred\.|mean$|std$|playground)")
V, EPSILON = "v_prediction", "epsilon"
PREDICTIONS = {"v": V, "v_prediction": V, "v-prediction": V, "v_pred": V, "velocity": V,
               "epsilon": EPSILON, "eps": EPSILON, "noise": EPSILON}  # fmt: skip
_YAML = r"""^[ \t]*["']?{}["']?[ \t]*:[ \t]*["']?([^"'#\s]+)"""


def scheduler_of(
    file: Path, family: str, found: Mapping[str, Any], notes: Mapping[str, str]
) -> dict[str, Any]:
    """The scheduler's configuration for a file.

    found: its content by name. notes: its header. Where nothing says what it predicts, 2.x predicts
    velocity (its "base" versions do not: give those a .yaml file) and the others noise. Raises
    ModelError for marks of a process that is not supported.
    """
    yaml = sidecar(file)
    _refuse_edm(file, found, notes, yaml)
    prediction = prediction_of(file, family, found, notes)
    config: dict[str, Any] = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": int(_number(file, yaml, "timesteps", 1000)),
        "beta_start": _number(file, yaml, "linear_start", 0.00085),
        "beta_end": _number(file, yaml, "linear_end", 0.012),
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": int(_number(file, yaml, "steps_offset", 1)),
        "prediction_type": prediction,
    }
    marked = any(name == "ztsnr" or name.endswith(".ztsnr") for name in found)
    for key in ("ztsnr", "rescale_betas_zero_snr", "zero_terminal_snr", "ss_zero_terminal_snr"):
        marked = marked or (_stated(notes, yaml, key) or "").lower() in ("true", "1", "yes")
    spacing = _stated(notes, yaml, "timestep_spacing")
    if marked:
        # Only trailing timesteps begin at the last one, whose signal is zero.
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": spacing or "trailing"}
    elif spacing:
        config["timestep_spacing"] = spacing
    return config


def prediction_of(
    file: Path, family: str, found: Mapping[str, Any], notes: Mapping[str, str]
) -> str:
    """ "epsilon" or "v_prediction": see scheduler_of."""
    yaml = sidecar(file)
    said: dict[str, str] = {}
    for key in ("modelspec.prediction_type", "prediction_type"):
        if value := notes.get(key):
            if value.lower() not in PREDICTIONS:
                raise ModelError(
                    f"{file}: its header says {key} = {value[:40]!r}. Supported: epsilon, v."
                )
            said[f"the header's {key}"] = PREDICTIONS[value.lower()]
    if any(name == "v_pred" or name.endswith(".v_pred") for name in found):
        said["the marker v_pred"] = V
    if yaml:
        stated = _yaml(yaml, "parameterization") or _yaml(yaml, "prediction_type")
        if stated is not None and stated.lower() not in PREDICTIONS:
            raise ModelError(
                f"{file.with_suffix('.yaml')} says parameterization {stated[:40]!r}. Supported: "
                "eps, v."
            )
        scaling = V if re.search(r"\bVScaling\b", yaml) else EPSILON
        said[f"{file.stem}.yaml"] = PREDICTIONS[stated.lower()] if stated else scaling
    if len(set(said.values())) > 1:
        one, other = (next(k for k, v in said.items() if v == kind) for kind in (V, EPSILON))
        raise ModelError(f"{file}: {one} says velocity and {other} says noise. Remove one of them.")
    if said:
        return next(iter(said.values()))
    if family == "2" and found.get("global_step") != GLOBAL_STEP_OF_2_BASE:
        return V
    return EPSILON


def scaling_factor_of(file: Path, usual: float) -> float:
    """The autoencoder's scaling factor: scale_factor of the .yaml file, or the family's usual."""
    return _number(file, sidecar(file), "scale_factor", usual)


def sidecar(file: Path) -> str:
    """The text of NAME.yaml beside the file, "" if there is none."""
    path = file.with_suffix(".yaml")
    if not path.exists():
        return ""
    return read_bytes(path, most=SIDECAR, error=ModelError).decode("utf-8", "replace")


def _refuse_edm(file: Path, found: Mapping[str, Any], notes: Mapping[str, str], yaml: str) -> None:
    marks = [name for name in sorted(found) if EDM.search(name)]
    marks += [f"{key} = {value}" for key, value in sorted(notes.items())
              if key in SPECS and "edm" in value.lower()]  # fmt: skip
    marks += re.findall(r"\b(?:EDMScaling|EDMDiscretization|VScalingWithEDM)\w*", yaml)
    if marks:
        raise ModelError(
            f"{file} is marked by {marks[0][:80]!r}: it was trained with the EDM process, which is "
            "not supported. Use a model that predicts noise or velocity."
        )


def _stated(notes: Mapping[str, str], yaml: str, key: str) -> str | None:
    return notes.get(key) or _yaml(yaml, key)


def _yaml(text: str, key: str) -> str | None:
    match = re.search(_YAML.format(re.escape(key)), text, re.MULTILINE)
    return match[1] if match else None


def _number(file: Path, yaml: str, key: str, usual: float) -> float:
    stated = _yaml(yaml, key)
    if stated is None:
        return usual
    try:
        value = float(stated)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ModelError(f"{file.with_suffix('.yaml')} says {key} = {stated[:40]!r}, no number.")
    return value
