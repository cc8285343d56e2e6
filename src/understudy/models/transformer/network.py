"""What all flow transformers have in common: functions from latents, sigma, text to a velocity.

Knows networks by their calls only; networks.py has a class for each family.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.attention.plan import AttentionControl
from understudy.attention.site import AttentionSite, Block, Kind
from understudy.device_copies import sent
from understudy.diffusion.text import Text
from understudy.errors import ModelError
from understudy.models.compiled import Compiled
from understudy.models.interface import References
from understudy.models.transformer.calls import Call, Calls, Order
from understudy.models.transformer.processors import Processor

Layers = list[tuple[str, Kind, Block, int, Any, type[Processor]]]


class FlowNetwork:
    """A transformer that predicts velocity. Its attention processors are replaced by ours.

    sites: its attention layers in order of execution; calls: what their processors listen to.
    patch: latent cells along a side of an image token. order: of the joint sequence. embeds:
    whether it reads a guidance scale (guidance-distilled). packs: whether 2 x 2 cells are packed
    into a token outside the network.
    """

    order: Order = "text first"
    patch = 2
    packs = False

    def __init__(self, module: nn.Module) -> None:
        self.module, self.calls = module, Calls()
        self.compiled: Compiled | None = None
        self.config = cast(Any, module).config
        self.embeds = bool(getattr(self.config, "guidance_embeds", False))
        sites: list[AttentionSite] = []
        for path, kind, block, number, layer, processor in self.layers():
            if getattr(layer, "fused_projections", False):
                raise ModelError(f"{path} has fused projections. Load the model again.")
            site = AttentionSite(
                path, kind, len(sites), block, number, number, heads=int(layer.heads)
            )
            layer.set_processor(processor(site, self.calls))
            sites.append(site)
        self.sites = tuple(sites)

    @property
    def forward(self) -> Any:
        """The network's call: compiled where that is wanted and no control takes part."""
        controlled = self.calls.current is not None
        return self.module if controlled or self.compiled is None else self.compiled

    def layers(self) -> Layers:
        """Path, kind, block, number and module of every attention layer, with our processor."""
        raise NotImplementedError

    def velocity(
        self,
        latents: Float[Tensor, "r c h w"],
        sigma: Float[Tensor, " r"],
        text: Text,
        references: References = (),
    ) -> Float[Tensor, "r c h w"]:
        """noise - clean, of the network's dtype. references: latents of pictures that the network
        reads beside the noisy one; only families that name them take any (see Family.refers)."""
        raise NotImplementedError

    def call(
        self,
        control: AttentionControl,
        size: tuple[int, int],
        text: Text,
        references: References = (),
    ) -> Call:
        """One call, for the processors. size: height and width of the latents."""
        grid = (size[0] // self.patch, size[1] // self.patch)
        cells = sum(ref.shape[-2] * ref.shape[-1] for ref in references) // self.patch**2
        return Call(control, grid, text.tokens.shape[1], self.order, cells)


def double_and_single(
    module: Any, double: type[Processor], single: type[Processor] | None = None
) -> Layers:
    """The blocks of FLUX's layout: `transformer_blocks`, then `single_transformer_blocks`."""
    found: Layers = []
    for number, block in enumerate(module.transformer_blocks):
        path = f"transformer_blocks.{number}.attn"
        found.append((path, "joint", "double", number, block.attn, double))
    for number, block in enumerate(getattr(module, "single_transformer_blocks", ())):
        path = f"single_transformer_blocks.{number}.attn"
        found.append((path, "joint", "single", number, block.attn, single or double))
    return found


def rows_of_time(time: float | Tensor, latents: Float[Tensor, "r c h w"]) -> Float[Tensor, " r"]:
    """Sigma of each row, float32, on the latents' device."""
    sigma = sent(torch.as_tensor(time, dtype=torch.float32), latents.device)
    return sigma.reshape(-1).expand(len(latents))
