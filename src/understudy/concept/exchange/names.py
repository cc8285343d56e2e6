"""What other programs call the weights that we call "unet.down_blocks.0...to_q.weight".

kohya's trainers join a module's path with underscores behind "lora_unet_", "lora_te_" (XL: te1,
te2); for XL they say "input_blocks_4_1" and so on, as Stability's code does. diffusers keeps dots.
Text encoders are "text_model...." to all of them, though transformers has dropped that prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

TEXT_MODEL = "text_model."
# Parts by our name, as kohya's files call them: with one text encoder, and with two.
NETWORKS = {"unet": "lora_unet", "transformer": "lora_unet"}
KOHYA = {**NETWORKS, "text_encoder": "lora_te"}
KOHYA_XL = {**NETWORKS, "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
TOP = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
WORDS = "shared.weight"  # T5's token embedding: rows of it are learnt, no file has a LoRA of it
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)")
_MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)")


def split_weight(name: str) -> tuple[str, str]:
    """A weight's part and the path of its module: "unet.conv_in.weight" -> unet, conv_in."""
    part, _, path = name.removesuffix(".weight").partition(".")
    return part, path


def as_text_model(part: str, path: str) -> str:
    """The path as older programs know it: text encoders with "text_model." in front."""
    if part in NETWORKS or path.startswith((TEXT_MODEL, "text_projection")):
        return path
    return TEXT_MODEL + path


def kohya_name(weight: str, weights: Iterable[str]) -> str:
    """The name of a weight of ours in kohya's files; weights: all there are in the model."""
    part, path = split_weight(weight)
    return _kohya_names(part, path, *_family(weights))[0]


def kohya_table(weights: Iterable[str]) -> dict[str, str]:
    """Every name by which kohya's files may call each weight of a model, and that weight."""
    known = list(weights)
    family = _family(known)
    named: dict[str, str] = {}
    for weight in known:
        part, path = split_weight(weight)
        if weight.endswith(WORDS):
            continue
        for name in _kohya_names(part, path, *family):
            named[name] = weight
    return named


def _family(weights: Iterable[str]) -> tuple[bool, int, frozenset[int]]:
    """Whether it is XL, blocks' number of layers, and which up blocks attend."""
    layers, attends, xl = 0, set[int](), False
    for weight in weights:
        xl = xl or weight.startswith("text_encoder_2.")
        down = re.match(r"unet\.down_blocks\.0\.resnets\.(\d+)\.", weight)
        layers = max(layers, int(down[1]) + 1) if down else layers
        up = re.match(r"unet\.up_blocks\.(\d+)\.attentions\.", weight)
        attends |= {int(up[1])} if up else set()
    return xl, layers, frozenset(attends)


def _kohya_names(
    part: str, path: str, xl: bool, layers: int, attends: frozenset[int]
) -> tuple[str, ...]:
    """The first is the one to write, all are read."""
    prefixes = [(KOHYA_XL if xl else KOHYA)[part]]
    if part == "text_encoder" and not xl:
        prefixes.append("lora_te1")  # some trainers count a single text encoder too
    if part == "transformer":
        prefixes.append("lora_transformer")  # OneTrainer's
    paths = [as_text_model(part, path)]
    if xl and part == "unet":
        paths.insert(0, stability_path(path, layers, attends))
    return tuple(f"{p}_{one.replace('.', '_')}" for p in prefixes for one in paths)


def stability_path(path: str, layers: int, attends: frozenset[int]) -> str:
    """A U-Net module's path in Stability's code, from that in diffusers."""
    if path in TOP:
        return TOP[path]
    mid, block = _MID.match(path), _BLOCK.match(path)
    if mid:
        place = 1 if mid[1] == "attentions" else 2 * int(mid[2])
        return f"middle_block.{place}" + _inner(path[mid.end() :], mid[1])
    if not block:
        return path
    side, level, kind, number = block[1], int(block[2]), block[3], int(block[4])
    rest = path[block.end() :]
    first = level * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if level in attends else 1}{rest}"
    place = f"input_blocks.{1 + first + number}" if side == "down" else None
    place = place or f"output_blocks.{first + number}"
    return f"{place}.{0 if kind == 'resnets' else 1}" + _inner(rest, kind)


def _inner(rest: str, kind: str) -> str:
    name = rest.removeprefix(".")
    return f".{RESNET.get(name, name)}" if kind == "resnets" else rest


_OLD_PROCESSOR = re.compile(r"\.processor\.(to_\w+?)_lora$")


def diffusers_weight(
    path: str, weights: Mapping[str, object], part: str | None = None
) -> str | None:
    """The weight of ours that a diffusers or PEFT file means by "unet....to_q", if there is one.

    A path without its part ("down_blocks.0...") is looked for in `part`, or in every part. It
    counts where exactly one has it: XL's two text encoders share their paths.
    """
    path = path.replace("base_model.model.", "")
    path = _OLD_PROCESSOR.sub(r".\1", path).replace(".to_out_lora", ".to_out.0")
    path = re.sub(r"\.to_out$", ".to_out.0", path)
    first, _, inner = path.partition(".")
    if part is None and (found := _in_part(first, inner, weights)):
        return found
    parts = [part] if part else sorted({name.split(".")[0] for name in weights})
    having = [found for one in parts if (found := _in_part(one, path, weights))]
    return having[0] if len(having) == 1 else None


def _in_part(part: str, path: str, weights: Mapping[str, object]) -> str | None:
    for one in (path, path.removeprefix(TEXT_MODEL), TEXT_MODEL + path):
        if f"{part}.{one}.weight" in weights:
            return f"{part}.{one}.weight"
    return None
