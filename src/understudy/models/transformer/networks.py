"""Flow transformers as functions from latents, sigma and text to a velocity: one class a family.

Each knows what its diffusers class is called with, how tokens are arranged, and the sites of its
attention layers. Knows networks by their calls only.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from understudy.attention.plan import AttentionControl
from understudy.diffusion.text import Text
from understudy.models.interface import References
from understudy.models.transformer.calls import Call, Order
from understudy.models.transformer.network import (
    FlowNetwork,
    Layers,
    double_and_single,
)
from understudy.models.transformer.packing import (
    framed,
    packed,
    tokens_in,
    unpacked,
    with_references,
)
from understudy.models.transformer.processors import (
    Flux2SingleProcessor,
    FluxProcessor,
    QwenProcessor,
    SD3Processor,
    ZImageProcessor,
)

ALIGNED = 32  # Z-Image pads the tokens of image and text to multiples of this


class SD3Network(FlowNetwork):
    """SD3Transformer2DModel. Latents go in as they are; the network cuts them into patches."""

    order: Order = "image first"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.patch = int(self.config.patch_size)

    def layers(self) -> Layers:
        """Joint attention in every block, in some a second one of the image alone."""
        found: Layers = []
        for number, block in enumerate(cast(Any, self.module).transformer_blocks):
            path = f"transformer_blocks.{number}"
            found.append((f"{path}.attn", "joint", "double", number, block.attn, SD3Processor))
            if getattr(block, "attn2", None) is not None:
                found.append((f"{path}.attn2", "self", "double", number, block.attn2, SD3Processor))
        return found

    def velocity(
        self,
        latents: Float[Tensor, "r c h w"],
        sigma: Float[Tensor, " r"],
        text: Text,
        references: References = (),
    ) -> Float[Tensor, "r c h w"]:
        """See FlowNetwork. The network is told sigma times 1000."""
        return self.forward(
            hidden_states=latents,
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
            timestep=sigma * 1000,
            return_dict=False,
        )[0]


class FluxNetwork(FlowNetwork):
    """FluxTransformer2DModel. Latents are packed, 2 x 2 cells a token; text has position 0."""

    packs = True

    def layers(self) -> Layers:
        """Double blocks, then single ones."""
        return double_and_single(self.module, FluxProcessor)

    def velocity(
        self,
        latents: Float[Tensor, "r c h w"],
        sigma: Float[Tensor, " r"],
        text: Text,
        references: References = (),
    ) -> Float[Tensor, "r c h w"]:
        """See FlowNetwork. A reference has frame 1 where the picture has 0 (FLUX.1 Kontext)."""
        tokens = with_references(packed(latents), [packed(one) for one in references])
        output = self.forward(
            hidden_states=tokens,
            encoder_hidden_states=text.tokens,
            timestep=sigma,
            img_ids=framed(latents, references, self.patch, step=1),
            txt_ids=latents.new_zeros(text.tokens.shape[1], 3),
            return_dict=False,
            **self.more(latents, text),
        )[0]
        return unpacked(output[:, : tokens_in(latents, self.patch)], latents.shape)

    def more(self, latents: Float[Tensor, "r c h w"], text: Text) -> dict[str, Any]:
        """What the network reads beside tokens and time."""
        return {"pooled_projections": text.pooled, "guidance": self.scale(text)}

    def scale(self, text: Text) -> Tensor | None:
        """The guidance scale of every row, 1 where the text has none; None = it reads none."""
        if not self.embeds:
            return None
        if text.guidance is not None:
            return text.guidance.float()
        return torch.ones(len(text), device=text.device)


class ChromaNetwork(FluxNetwork):
    """ChromaTransformer2DModel: FLUX's blocks, no pooled text, padding of the text masked out."""

    def more(self, latents: Float[Tensor, "r c h w"], text: Text) -> dict[str, Any]:
        """The mask of words and cells."""
        if text.mask is None:
            return {}
        cells = latents.shape[-2] * latents.shape[-1] // self.patch**2
        image = text.mask.new_ones(len(text), cells)
        return {"attention_mask": torch.cat([text.mask, image], dim=1)}


class Flux2Network(FluxNetwork):
    """Flux2Transformer2DModel. A cell is a token; positions are (time, row, column, word)."""

    patch = 1
    packs = False

    def layers(self) -> Layers:
        """Double blocks, then single ones with fused projections of their own."""
        return double_and_single(self.module, FluxProcessor, Flux2SingleProcessor)

    def velocity(
        self,
        latents: Float[Tensor, "r c h w"],
        sigma: Float[Tensor, " r"],
        text: Text,
        references: References = (),
    ) -> Float[Tensor, "r c h w"]:
        """See FlowNetwork. References have the frames 10, 20 and so on."""
        words = text.tokens.shape[1]
        tokens = [one.flatten(2).transpose(1, 2) for one in (latents, *references)]
        output = self.forward(
            hidden_states=with_references(tokens[0], tokens[1:]),
            encoder_hidden_states=text.tokens,
            timestep=sigma,
            guidance=self.scale(text),
            img_ids=pad(framed(latents, references, 1, step=10), (0, 1)),
            txt_ids=torch.stack([*[torch.zeros(words)] * 3, torch.arange(words).float()], dim=1).to(
                latents.device
            ),
            return_dict=False,
        )[0][:, : tokens_in(latents, 1)]
        return output.transpose(1, 2).reshape(latents.shape)


class QwenNetwork(FlowNetwork):
    """QwenImageTransformer2DModel. Latents are packed, 2 x 2 cells a token; words are masked."""

    packs = True

    def layers(self) -> Layers:
        """Double blocks only."""
        return double_and_single(self.module, QwenProcessor)

    def velocity(
        self,
        latents: Float[Tensor, "r c h w"],
        sigma: Float[Tensor, " r"],
        text: Text,
        references: References = (),
    ) -> Float[Tensor, "r c h w"]:
        """See FlowNetwork."""
        rows, _, height, width = latents.shape
        whole = text.mask is None or bool(text.mask.all())
        output = self.forward(
            hidden_states=packed(latents),
            timestep=sigma,
            encoder_hidden_states=text.tokens,
            encoder_hidden_states_mask=None if whole else text.mask,
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
            return_dict=False,
        )[0]
        return unpacked(output, latents.shape)


class ZImageNetwork(FlowNetwork):
    """ZImageTransformer2DModel: lists of unpadded rows; it is told 1 - sigma and gives -velocity.

    Tokens of the image are padded to a multiple of 32, those of the text as well. In a site the
    image's padding counts as reference tokens, because attention reads it.
    """

    order: Order = "image first"

    def layers(self) -> Layers:
        """Refiners of the image alone, then joint blocks. Refiners of the text are left alone."""
        module = cast(Any, self.module)
        found: Layers = []
        for number, block in enumerate(module.noise_refiner):
            path = f"noise_refiner.{number}.attention"
            found.append((path, "self", "refiner", number, block.attention, ZImageProcessor))
        for number, block in enumerate(module.layers):
            path = f"layers.{number}.attention"
            found.append((path, "joint", "single", number, block.attention, ZImageProcessor))
        return found

    def velocity(
        self,
        latents: Float[Tensor, "r c h w"],
        sigma: Float[Tensor, " r"],
        text: Text,
        references: References = (),
    ) -> Float[Tensor, "r c h w"]:
        """See FlowNetwork."""
        rows = self.forward(
            list(latents.unsqueeze(2).unbind(0)), 1 - sigma, _unpadded(text), return_dict=False
        )[0]
        return -torch.stack(list(rows)).squeeze(2)

    def call(
        self,
        control: AttentionControl,
        size: tuple[int, int],
        text: Text,
        references: References = (),
    ) -> Call:
        """See FlowNetwork."""
        plain = super().call(control, size, text)
        cells = plain.grid[0] * plain.grid[1]
        words = max(len(row) for row in _unpadded(text))
        return Call(control, plain.grid, _aligned(words), self.order, _aligned(cells) - cells)


def _unpadded(text: Text) -> list[Tensor]:
    """The tokens of each row that its mask keeps."""
    if text.mask is None:
        return list(text.tokens.unbind(0))
    return [row[kept] for row, kept in zip(text.tokens, text.mask, strict=True)]


def _aligned(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED
