"""A diffusers U-Net that takes an attention control per call.

Processors are installed once, when a Denoiser is made, and stay for good: without a control they
are plain fused attention. The control travels as an argument (cross_attention_kwargs); nothing
here remembers a step or a call, except the count of rows. Knows U-Nets by their shape only (layers
with to_q, to_k, to_v, to_out), so it imports no foreign library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from understudy.attention.attend import Projections, attend
from understudy.attention.plan import AttentionControl, AttentionPlan
from understudy.attention.site import NOWHERE, AttentionSite, Kind
from understudy.diffusion.schedule import Time
from understudy.diffusion.text import Text
from understudy.errors import ModelError
from understudy.models.unet.injection import injecting

BLOCKS: dict[str, Literal["down", "mid", "up"]] = {
    "down_blocks": "down",
    "mid_block": "mid",
    "up_blocks": "up",
}

# What an attention layer must have, to be asked for its parts.
NEEDED = "to_q to_k to_v to_out heads scale is_cross_attention set_processor".split()

# What an attention layer may have beyond plain attention, and the value that means "it has not".
EXTRAS: dict[str, Any] = {
    "group_norm": None,
    "spatial_norm": None,
    "norm_q": None,
    "norm_k": None,
    "norm_cross": None,
    "added_kv_proj_dim": None,
    "residual_connection": False,
    "rescale_output_factor": 1.0,
}


class Denoiser:
    """A U-Net, and a count of the rows it was given.

    unet: a UNet2DConditionModel or anything with its call; its attention processors are replaced.
    downscale: pixels of a latent's side. Raises ModelError when an attention layer cannot
    take a control.
    """

    def __init__(self, unet: nn.Module, *, downscale: int = 8) -> None:
        self.unet = unet
        self.downscale = downscale
        self.rows = 0
        self.sites = install(unet)

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        time: Time,
        text: Text,
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """The network's raw output, of the latents' dtype.

        Raises ModelError when an attention layer did not ask the control (somebody replaced its
        processor since).
        """
        parameter = next(self.unet.parameters())
        height, width = latents.shape[-2:]
        call = None if control is None else _Call(control, (height, width))
        tokens, added = self._conditions(latents, text.to(parameter.dtype))
        with injecting(self.unet, self.sites, control):
            output = self.unet(
                latents.to(parameter.dtype),
                time,
                encoder_hidden_states=tokens,
                added_cond_kwargs=added,
                cross_attention_kwargs=None if call is None else {"control": call},
                return_dict=False,
            )[0]
        self.rows += latents.shape[0]
        if call is not None:
            self._verify(call.heard)
        return output.to(latents.dtype)

    def _conditions(self, latents: Tensor, text: Text) -> tuple[Tensor, dict[str, Tensor] | None]:
        """The text's tokens, and what XL reads beside them: pooled text and the picture's frame.

        The frame (Podell et al. 2023, section 2.2) is that of a picture which was neither scaled
        nor cropped: original size, corner and target size, in pixels.
        """
        if text.pooled is None:
            return text.tokens, None
        height, width = (side * self.downscale for side in latents.shape[-2:])
        frame = text.tokens.new_tensor([height, width, 0, 0, height, width]).expand(len(text), -1)
        return text.tokens, {"text_embeds": text.pooled, "time_ids": frame}

    def _verify(self, heard: list[str]) -> None:
        silent = [site.name for site in self.sites if site.name not in set(heard)]
        if silent:
            raise ModelError(
                f"Every attention layer must ask the control. {len(silent)} of {len(self.sites)} "
                f"did not, the first is {silent[0]}. Load the model again, and leave its "
                "attention processors as they are."
            )


def install(unet: nn.Module) -> tuple[AttentionSite, ...]:
    """Give every attention layer our processor; return their sites in order of execution.

    Raises ModelError, before anything is changed, when a layer is more than plain attention.
    """
    found = sorted(_attention_layers(unet), key=lambda item: list(BLOCKS.values()).index(item[1]))
    if not found:
        raise ModelError(
            f"Wanted a U-Net with attention layers. Got {type(unet).__name__} with none."
        )
    for name, _, layer in found:
        _check(name, layer)
    levels = _levels(unet)
    sites: list[AttentionSite] = []
    transformers: dict[str, list[str]] = {}
    for index, (name, block, layer) in enumerate(found):
        number = int(name.split(".")[1]) if block != "mid" else 0
        kind: Kind = "cross" if layer.is_cross_attention else "self"
        home, alike = name.split(".transformer_blocks.")[0], transformers.setdefault(block, [])
        if home not in alike:
            alike.append(home)
        site = AttentionSite(
            name, kind, index, block, number, alike.index(home), heads=int(layer.heads)
        )
        layer.set_processor(Processor(site, levels[block, number]))
        sites.append(site)
    return tuple(sites)


class Processor:
    """Attention of one layer: plain and fused, or as the call's control plans it.

    level: how many times the latents' sides have been halved here.
    """

    def __init__(self, site: AttentionSite, level: int) -> None:
        self.site, self.level = site, level

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        control: _Call | None = None,
    ) -> Tensor:
        """Called by diffusers; hidden_states "r n c", encoder_hidden_states "r tokens width"."""
        if attention_mask is not None:
            raise ModelError(f"{self.site.name} was given an attention mask; none is supported.")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        site, plan = self.site, None
        if control is not None:
            site = control.placed(site, self.level, hidden_states.shape[1], context.shape[1])
            plan = control.plan(site)
        layer = Projections(
            query=attn.to_q,
            key=attn.to_k,
            value=attn.to_v,
            out=lambda mixed: attn.to_out[1](attn.to_out[0](mixed)),
            heads=attn.heads,
            scale=attn.scale,
        )
        return attend(hidden_states, context, layer, site, plan)


class _Call:
    """One call's control, which layers asked it, and the size of the latents."""

    def __init__(self, control: AttentionControl, size: tuple[int, int]) -> None:
        self.control, self.size = control, size
        self.heard: list[str] = []

    def placed(self, site: AttentionSite, level: int, cells: int, keys: int) -> AttentionSite:
        """The site with this call's grid: sides are halved and rounded up at every level."""
        height, width = self.size
        for _ in range(level):
            height, width = -(-height // 2), -(-width // 2)
        if height * width != cells:
            raise ModelError(
                f"{site.name} has {cells} queries; wanted {height} x {width} of latents of "
                f"{self.size[0]} x {self.size[1]}. This U-Net's layout is not supported."
            )
        image, text = (
            (slice(0, keys), NOWHERE) if site.kind == "self" else (NOWHERE, slice(0, keys))
        )
        return replace(site, grid=(height, width), image=image, text=text)

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        self.heard.append(site.name)
        return self.control.plan(site)


def _levels(unet: nn.Module) -> dict[tuple[str, int], int]:
    """How many times the latents' sides have been halved in each block."""
    levels: dict[tuple[str, int], int] = {}
    level = 0
    for number, block in enumerate(cast(Any, unet).down_blocks):
        levels["down", number] = level
        level += getattr(block, "downsamplers", None) is not None
    levels["mid", 0] = level
    for number, block in enumerate(cast(Any, unet).up_blocks):
        levels["up", number] = level
        level -= getattr(block, "upsamplers", None) is not None
    return levels


def _attention_layers(
    unet: nn.Module,
) -> Iterator[tuple[str, Literal["down", "mid", "up"], Any]]:
    for name, module in unet.named_modules():
        if hasattr(module, "to_q") or hasattr(module, "set_processor"):
            block = BLOCKS.get(name.split(".")[0])
            if block is None:
                raise ModelError(
                    f"Attention layers are expected in {', '.join(BLOCKS)}. Got one at {name}."
                )
            yield name, block, cast(Any, module)


def _check(name: str, layer: Any) -> None:
    """Refuse a layer whose arithmetic `attend` would not reproduce."""
    missing = [f"no {part}" for part in NEEDED if not hasattr(layer, part)]
    odd = [part for part, plain in EXTRAS.items() if getattr(layer, part, plain) != plain]
    if missing or odd:
        what = ", ".join(missing + [f"its {part}" for part in odd])
        raise ModelError(
            f"The attention layer {name} ({type(layer).__name__}) takes no control: {what}. "
            "Supported: the U-Nets of Stable Diffusion 1.x, 2.x and XL."
        )
