"""Flow transformers as functions from latents, sigma and text to a velocity: one class a family.

Each knows what its diffusers class is called with, how tokens are arranged, and the sites of its
attention layers. Knows networks by their calls only.
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.attention.site import AttentionSite, Kind
from understudy.diffusion.text import Text
from understudy.errors import ModelError
from understudy.models.transformer.calls import Calls, Order
from understudy.models.transformer.processors import Processor, SD3Processor


@runtime_checkable
class FlowNetwork(Protocol):
    """A transformer that predicts velocity.

    sites: its attention layers in order of execution; calls: what their processors listen to.
    patch: latent cells along a side of an image token. order: of the joint sequence.
    """

    module: nn.Module
    sites: tuple[AttentionSite, ...]
    calls: Calls
    patch: int
    order: Order

    def velocity(
        self, latents: Float[Tensor, "r c h w"], sigma: Float[Tensor, " r"], text: Text
    ) -> Float[Tensor, "r c h w"]:
        """noise - clean, of the network's dtype."""
        ...


class SD3Network:
    """SD3Transformer2DModel. Latents go in as they are; the network cuts them into patches."""

    order: Order = "image first"

    def __init__(self, module: nn.Module) -> None:
        self.module, self.calls = module, Calls()
        self.patch = int(cast(Any, module).config.patch_size)
        found: list[tuple[AttentionSite, Any]] = []
        for number, block in enumerate(cast(Any, module).transformer_blocks):
            for name in ("attn", "attn2"):
                kind: Kind = "joint" if name == "attn" else "self"
                layer = getattr(block, name, None)
                if layer is not None:
                    path = f"transformer_blocks.{number}.{name}"
                    site = AttentionSite(
                        path, kind, len(found), "double", number, number, heads=int(layer.heads)
                    )
                    found.append((site, layer))
        self.sites = installed(found, SD3Processor, self.calls)

    def velocity(
        self, latents: Float[Tensor, "r c h w"], sigma: Float[Tensor, " r"], text: Text
    ) -> Float[Tensor, "r c h w"]:
        """See FlowNetwork. The network is told sigma times 1000."""
        return cast(Any, self.module)(
            hidden_states=latents,
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
            timestep=sigma * 1000,
            return_dict=False,
        )[0]


def installed(
    found: list[tuple[AttentionSite, Any]], kind: type[Processor], calls: Calls
) -> tuple[AttentionSite, ...]:
    """Give every layer our processor; return the sites.

    Raises ModelError for a layer whose projections were fused: its separate ones are not used.
    """
    for site, layer in found:
        if getattr(layer, "fused_projections", False):
            raise ModelError(f"{site.name} has fused projections. Load the model again.")
        layer.set_processor(kind(site, calls))
    return tuple(site for site, _ in found)


def rows_of_time(time: float | Tensor, latents: Float[Tensor, "r c h w"]) -> Float[Tensor, " r"]:
    """Sigma of each row, float32, on the latents' device."""
    sigma = torch.as_tensor(time, dtype=torch.float32, device=latents.device)
    return sigma.reshape(-1).expand(len(latents))
