"""The scale of a LoRA as a file's header or PEFT's adapter_config.json gives it.

diffusers writes PEFT's settings into the header entry "lora_adapter_metadata", as JSON with the
part in front of each key ("unet.lora_alpha"). PEFT's scale is lora_alpha / r, or lora_alpha /
sqrt(r) with use_rslora (Kalajdzievski 2023); rank_pattern and alpha_pattern name exceptions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from understudy.concept.exchange.names import TEXT_MODEL, split_weight
from understudy.errors import ConceptError
from understudy.files.reading import parse_json

HEADER = "lora_adapter_metadata"
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
PLAIN_KEY = re.compile(r"\^?[A-Za-z0-9_.]+\$?")  # a pattern that is a module's name or its end
REFUSED = ("fan_in_fan_out", "modules_to_save", "trainable_token_indices", "layer_replication",
           "megatron_config", "use_qalora", "arrow_config", "alora_invocation_tokens")  # fmt: skip
KINDS = ("LORA", "LOHA", "LOKR")
# Ways to begin training that change the base model's weights too, so that the file alone is not
# the whole change.
CHANGES_BASE = ("pissa", "olora", "loftq", "corda")


@dataclass
class Scales:
    """settings: PEFT's settings by part, "" for all parts. kohya: ss_network_alpha."""

    settings: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    left_out: list[str] = field(default_factory=list[str])

    def of(self, weight: str) -> Mapping[str, Any]:
        """What the settings say of the part that a weight belongs to."""
        part, _ = split_weight(weight)
        return self.settings.get(part, self.settings.get("", {}))

    def scale(self, weight: str, rank: int | None, own: float | None, file: str) -> float:
        """What the product of a module's matrices is multiplied by.

        rank: None for a LoKr of two full factors, whose scale is 1 but in PEFT. own: the alpha
        tensor of the module, None if the file has none. Raises ConceptError where header and
        tensors contradict each other.
        """
        if rank is None:
            said = self.of(weight)
            _, path = split_weight(weight)
            stated = _matched(said, "rank_pattern", path, file) or said.get("r")
            rank = int(_number(stated, "r", file) or 0)
            if not rank:
                return 1.0
            own = None
        return self.alpha(weight, rank, own, file) / rank

    def alpha(self, weight: str, rank: int, own: float | None, file: str) -> float:
        """The alpha of one module, so that its scale is alpha / rank."""
        _, path = split_weight(weight)
        said = self.of(weight)
        if not said:
            return rank if own is None else own
        stated = _number(_matched(said, "rank_pattern", path, file) or said.get("r"), "r", file)
        if stated is not None and stated != rank:
            raise ConceptError(
                f"{file}: the settings say rank {stated:g} for {weight}, its matrices have rank "
                f"{rank}. Save the file again with the program that made it."
            )
        pattern = _matched(said, "alpha_pattern", path, file)
        value = said.get("lora_alpha", said.get("alpha")) if pattern is None else pattern
        found = _number(value, "lora_alpha", file)
        if found is None:
            return rank if own is None else own
        found *= math.sqrt(rank) if said.get("use_rslora") else 1
        if own is not None and not math.isclose(own, found, rel_tol=1e-3):
            raise ConceptError(
                f"{file}: the settings say alpha {found:g} for {weight}, its alpha tensor says "
                f"{own:g}. Remove one of them."
            )
        return found


def scales_of(notes: Mapping[str, str], file: str) -> Scales:
    """What a file's header says of the scale. Raises ConceptError for what is not understood."""
    scales = Scales()
    if HEADER in notes:
        scales.settings = settings_by_part(_parsed(notes[HEADER], file), file)
    for key in sorted(notes):
        if re.search(r"alpha|scale|multiplier", key) and not key.startswith(("ss_", "modelspec.")):
            scales.left_out.append(f"the header entry {key!r} ({str(notes[key])[:40]!r})")
    return scales


def settings_by_part(told: Mapping[str, Any], file: str) -> dict[str, dict[str, Any]]:
    """PEFT's settings sorted by part: "unet.r" and {"unet": {"r": ...}} mean the same."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in told.items():
        part, _, rest = key.partition(".")
        if part not in PARTS:
            part, rest = "", key
        if part and not rest and isinstance(value, dict):
            found.setdefault(part, {}).update(cast("dict[str, Any]", value))
        else:
            found.setdefault(part, {})[rest] = value
    for said in found.values():
        _refuse_other_kinds(said, file)
    return found


def _refuse_other_kinds(said: Mapping[str, Any], file: str) -> None:
    """Settings that make an adapter something else than a plain LoRA."""
    odd = [key for key in REFUSED if said.get(key)]
    if str(said.get("peft_type") or "LORA") not in KINDS:
        odd.insert(0, "peft_type")
    begun = said.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(CHANGES_BASE):
        odd.append("init_lora_weights")
    if said.get("bias") not in (None, "none"):
        odd.append("bias")
    if odd:
        raise ConceptError(
            f"{file} is not a supported adapter: its settings say {odd[0]} = "
            f"{str(said[odd[0]])[:60]}, which is not supported. Merge it into a model with the "
            "program that made it, and import that folder."
        )


def _matched(said: Mapping[str, Any], name: str, path: str, file: str) -> Any:
    """The entry of a pattern table for a module; PEFT takes the first key that fits its end."""
    table = said.get(name) or {}
    if not isinstance(table, dict):
        raise ConceptError(f"{file}: {name} is not a table of module names.")
    for key, value in cast("dict[str, Any]", table).items():
        plain = key.replace("\\.", ".")
        if not PLAIN_KEY.fullmatch(plain):
            raise ConceptError(
                f"{file}: the key {key[:80]!r} of {name} is a regular expression, which is not "
                "read. Expected names of modules."
            )
        wanted = plain.strip("^$")
        for one in (path, TEXT_MODEL + path):
            whole = one == wanted
            if whole or (not plain.startswith("^") and one.endswith("." + wanted)):
                return value
    return None


def _number(value: Any, name: str, file: str) -> float | None:
    if value is None:
        return None
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value == 0:
        raise ConceptError(f"{file}: {name} must be a number other than 0. Got {value!r}.")
    return float(value)


def _parsed(text: str, file: str) -> dict[str, Any]:
    told = parse_json(text, f"{file}: the header entry {HEADER!r}", error=ConceptError)
    if not isinstance(told, dict):
        raise ConceptError(f"{file}: the header entry {HEADER!r} is not a JSON object.")
    return cast("dict[str, Any]", told)
