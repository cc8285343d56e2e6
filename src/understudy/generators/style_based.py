"""What StyleGAN2 and StyleGAN3 share: mapping network, latents, and held layers.

Karras et al. 2019, arXiv:1812.04948, section 2: z is mapped to w, w steers every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.layers import EPSILON, GAIN, SLOPE, Linear
from understudy.generators.stylegan3.config import StyleGAN3Config


class StyleMapping(nn.Module):
    """z (and a label) -> w, by fully connected layers; the truncation trick."""

    w_avg: Tensor

    def __init__(self, config: StyleGAN2Config | StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        if config.c_dim:
            self.embed = Linear(config.c_dim, config.w_dim)
        inputs = config.z_dim + (config.w_dim if config.c_dim else 0)
        for index in range(config.mapping_layers):
            layer = Linear(inputs, config.w_dim, config.mapping_lr_multiplier)
            self.add_module(f"fc{index}", layer)
            inputs = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(
        self, z: Float[Tensor, "b z_dim"], labels: Float[Tensor, "b c_dim"] | None = None
    ) -> Float[Tensor, "b w_dim"]:
        """w without truncation. No labels are labels of zeros."""
        x = _normalised(z.to(self.w_avg.dtype))
        if self.config.c_dim:
            if labels is None:
                labels = x.new_zeros(len(x), self.config.c_dim)
            x = torch.cat([x, _normalised(self.embed(labels.to(x.dtype)))], dim=1)
        for index in range(self.config.mapping_layers):
            x = nn.functional.leaky_relu(self.get_submodule(f"fc{index}")(x), SLOPE) * GAIN
        return x

    def spread(
        self, w: Float[Tensor, "b w_dim"], layers: int, truncation: float, cutoff: int | None
    ) -> Float[Tensor, "b layers w_dim"]:
        """w once a layer; the first `cutoff` layers (None: all) drawn towards the mean."""
        ws = w.unsqueeze(1).repeat(1, layers, 1)
        if truncation != 1:
            ws[:, :cutoff] = self.w_avg.lerp(ws[:, :cutoff], truncation)
        return ws


class StyleBased(nn.Module):
    """A generator up to its synthesis network, which each generation adds."""

    def __init__(
        self, config: StyleGAN2Config | StyleGAN3Config, name: str, fingerprint: str
    ) -> None:
        super().__init__()
        self.name, self.fingerprint = name, fingerprint
        self.mapping = StyleMapping(config)

    @property
    def device(self) -> torch.device:
        return self.mapping.w_avg.device

    @property
    def num_ws(self) -> int:
        return self.mapping.config.num_ws

    @property
    def w_dim(self) -> int:
        return self.mapping.config.w_dim

    def draw_z(self, seed: int) -> Float[Tensor, "1 z_dim"]:
        """The published programs' latent of a seed: NumPy's legacy generator, float64."""
        return torch.from_numpy(np.random.RandomState(seed).randn(1, self.mapping.config.z_dim))

    @torch.no_grad()
    def latents(
        self,
        z: Float[Tensor, "b z_dim"],
        labels: Float[Tensor, "b c_dim"] | None = None,
        *,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Float[Tensor, "b num_ws w_dim"]:
        """w of z, once a layer; the first `cutoff` (all, if None) drawn towards the mean."""
        w = self.mapping(z.to(self.device), labels)
        return self.mapping.spread(w, self.num_ws, truncation, cutoff)


Walk = TypeVar("Walk")


class HeldLayers(Generic[Walk]):
    """The layers of a latent from `moving` on, held; the part of `HeldLatent` that both share.

    The last walk through the network is kept: a picture goes on where the features of a step ended.
    """

    def __init__(self, model: StyleBased, ws: Float[Tensor, "1 num_ws w_dim"], moving: int) -> None:
        self.moving = moving
        self._ws = ws.detach().to(model.mapping.w_avg)
        self._walked: tuple[Tensor, Walk] | None = None

    def keep(self, moving_ws: Float[Tensor, "1 moving w_dim"], walk: Walk) -> None:
        """Remember what a walk from these w gave, free of gradients."""
        self._walked = moving_ws.detach().clone(), walk

    def kept(self, moving_ws: Float[Tensor, "1 moving w_dim"]) -> Walk | None:
        """What the last walk gave, if it was from these w."""
        if self._walked is None or not torch.equal(self._walked[0], moving_ws):
            return None
        return self._walked[1]

    def ws(self, moving_ws: Float[Tensor, "1 moving w_dim"]) -> Float[Tensor, "1 num_ws w_dim"]:
        return torch.cat([moving_ws, self._ws[:, self.moving :]], dim=1)


Network = TypeVar("Network", bound=nn.Module)


def filled(model: Network, given: Mapping[str, Tensor]) -> Network:
    """The model with these weights, frozen. Raises ModelError, naming a tensor that differs."""
    wanted = model.state_dict()
    for tensor in wanted.keys() | given.keys():
        want, got = wanted.get(tensor), given.get(tensor)
        if want is None or got is None or want.shape != got.shape:
            raise ModelError(
                f"The weights of {model.name or 'the generator'} do not fit its configuration: "
                f"{tensor} is {_shape(want)} there and {_shape(got)} in the weights."
            )
    model.load_state_dict(dict(given))
    return model.eval().requires_grad_(False)


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
