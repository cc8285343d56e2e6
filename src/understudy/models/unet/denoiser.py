"""A diffusers U-Net that takes an attention control per call.

Processors are installed once, when a Denoiser is made, and stay for good: without a control they
are plain fused attention. The control travels as an argument (cross_attention_kwargs); nothing
here remembers a step or a call, except the count of rows. Knows U-Nets by their shape only (layers
with to_q, to_k, to_v, to_out), so it imports no foreign library.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.attention.attend import attend
from understudy.attention.plan import AttentionControl, AttentionPlan
from understudy.attention.projections import Projections
from understudy.attention.site import AttentionSite, Kind
from understudy.device_copies import sent
from understudy.diffusion.schedule import Time
from understudy.diffusion.text import Text
from understudy.errors import ModelError
from understudy.models.compiled import Compiled
from understudy.models.graphs import Graphs
from understudy.models.unet.injection import feature_plan, injecting
from understudy.models.unet.planned_call import PlannedCall

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


# Latents, time, tokens of the text, what XL reads beside them.
Given = tuple[Tensor, Tensor, Tensor, dict[str, Tensor] | None]


class Denoiser:
    """A U-Net, and a count of its evaluations.

    unet: a UNet2DConditionModel or anything with its call; its attention processors are replaced.
    downscale: pixels of a latent's side. channels_last: layout of the convolutions' weights and
    maps, None = on a GPU: cuDNN's convolutions read that one, and from another every call converts
    both, a quarter of an evaluation's time on an H200 (`scripts/bench gpu`). compiled: the
    network's call as torch.compile makes it; None = it runs as it is. graphs: records and replays
    its calls; None = they run.

    Raises ModelError when an attention layer cannot take a control.
    """

    def __init__(
        self, unet: nn.Module, *, downscale: int = 8, channels_last: bool | None = None
    ) -> None:
        self.unet = unet
        self.downscale = downscale
        self.nfe = 0
        self.compiled: Compiled | None = None
        self.graphs: Graphs | None = None
        self.sites, self.levels = install(unet)
        on_gpu = next(unet.parameters()).device.type == "cuda"
        self.channels_last = on_gpu if channels_last is None else channels_last
        if self.channels_last:
            cast(Any, unet).to(memory_format=torch.channels_last)
        self._times: dict[tuple[float, torch.device], Tensor] = {}

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
        tokens, added = self._conditions(latents, text.to(parameter.dtype))
        call = None
        if control is not None:
            size = (int(height), int(width))
            call = PlannedCall.made(control, self.sites, self.levels, size, tokens.shape[1])
        wanted = torch.channels_last if self.channels_last else torch.preserve_format
        noisy = latents.to(parameter.dtype, memory_format=wanted)
        given = (noisy, self._told(time, latents.device), tokens, added)
        # Recorded maps and kept rows leave a replayed call without their history.
        if self.graphs is None or (call is not None and torch.is_grad_enabled()):
            output = self._run(given, call, control)
        else:
            output = self._replayed(self.graphs, given, call, control)
        self.nfe += latents.shape[0]
        if call is not None:
            self._verify(call.heard)
            call.hand_over()
        return output.to(latents.dtype, memory_format=torch.contiguous_format)

    def _run(
        self, given: Given, call: PlannedCall | None, control: AttentionControl | None
    ) -> Tensor:
        """The network's output, in its own dtype."""
        latents, time, tokens, added = given
        # A hook that is set later is not seen by a compiled network.
        network = self.unet if feature_plan(control) else self.compiled or self.unet
        with injecting(self.unet, self.sites, control):
            return network(
                latents,
                time,
                encoder_hidden_states=tokens,
                added_cond_kwargs=added,
                cross_attention_kwargs=None if call is None else {"control": call},
                return_dict=False,
            )[0]

    def _replayed(
        self,
        graphs: Graphs,
        given: Given,
        call: PlannedCall | None,
        control: AttentionControl | None,
    ) -> Tensor:
        """The same, by a graph that was recorded before where there is one."""
        if call is None:
            return graphs(lambda given: self._run(given, None, None), given)

        def run(inputs: tuple[Given, tuple[AttentionPlan | None, ...]]) -> Any:
            own = call.with_plans(inputs[1])
            return self._run(inputs[0], own, control), own.received, own.heard

        inputs, kind = (given, call.bare_plans), feature_plan(control)
        output, call.received, call.heard = graphs(run, inputs, kind)
        return output

    def _told(self, time: Time, device: torch.device) -> Tensor:
        """The time as a tensor on the device: a number would be copied there in every call, and
        would make a compiled network compile again."""
        if isinstance(time, Tensor):
            return time
        if (time, device) not in self._times:
            kind = torch.int64 if isinstance(time, int) else torch.float64
            kind = torch.float32 if device.type == "mps" else kind
            self._times[time, device] = sent(torch.tensor([time], dtype=kind), device)
        return self._times[time, device]

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

    def _verify(self, heard: list[int]) -> None:
        silent = [site.name for site in self.sites if site.index not in set(heard)]
        if silent:
            raise ModelError(
                f"{len(silent)} of {len(self.sites)} attention layers did not call the "
                f"control; the first is {silent[0]}. Load the model again, and leave its "
                "attention processors as they are."
            )


def install(unet: nn.Module) -> tuple[tuple[AttentionSite, ...], tuple[int, ...]]:
    """Give every attention layer our processor.

    Returns the layers' sites in order of execution, and how many times the latents' sides have been
    halved at each.

    Raises ModelError, before anything is changed, when a layer is more than plain attention.
    """
    found = sorted(_attention_layers(unet), key=lambda item: list(BLOCKS.values()).index(item[1]))
    if not found:
        raise ModelError(
            f"Expected a U-Net with attention layers. Got {type(unet).__name__} with none."
        )
    for name, _, layer in found:
        _check(name, layer)
    levels = _levels(unet)
    sites: list[AttentionSite] = []
    halvings: list[int] = []
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
        layer.set_processor(Processor(site))
        sites.append(site)
        halvings.append(levels[block, number])
    return tuple(sites), tuple(halvings)


class Processor:
    """Attention of one layer: plain and fused, or as the call's control plans it."""

    def __init__(self, site: AttentionSite) -> None:
        self.site = site

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        control: PlannedCall | None = None,
    ) -> Tensor:
        """Called by diffusers; hidden_states "r n c", encoder_hidden_states "r tokens width"."""
        if attention_mask is not None:
            raise ModelError(f"{self.site.name} was given an attention mask; none is supported.")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        site, plan = self.site, None
        if control is not None:
            site, plan = control.plans[site.index]
            control.heard.append(site.index)
            _check_grid(site, hidden_states.shape[1], control.size)
        layer = Projections(
            query=attn.to_q,
            key=attn.to_k,
            value=attn.to_v,
            out=lambda mixed: attn.to_out[1](attn.to_out[0](mixed)),
            heads=attn.heads,
            scale=attn.scale,
        )
        return attend(hidden_states, context, layer, site, plan)


def _check_grid(site: AttentionSite, cells: int, size: tuple[int, int]) -> None:
    if site.cells != cells:
        raise ModelError(
            f"{site.name} has {cells} queries; expected {site.grid[0]} x {site.grid[1]} of latents "
            f"of {size[0]} x {size[1]}. This U-Net's layout is not supported."
        )


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
            f"The attention layer {name} ({type(layer).__name__}) does not support attention "
            f"control: {what}. Supported: the U-Nets of Stable Diffusion 1.x, 2.x and XL."
        )
