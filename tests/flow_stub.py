"""A flow model without networks: a closed velocity for each prompt, behind the model protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from understudy.diffusion.flow import FlowSchedule
from understudy.diffusion.schedule import Schedule
from understudy.diffusion.text import Text, Tokens


class FlowStub:
    """Prompts are numbers of letters; the velocity is smooth, not linear, and its own per prompt.

    sizes: the batch sizes of the calls so far.
    """

    name, fingerprint, base_fingerprint = "stub", "0" * 64, "0" * 64
    device, dtype = torch.device("cpu"), torch.float64
    picture_size, downscale, latent_channels, max_tokens = (12, 8), 2, 3, 8

    def __init__(self, schedule: Schedule | None = None) -> None:
        self.schedule = schedule or FlowSchedule(3.0, "trained")
        self.nfe, self.sizes = 0, list[int]()

    vocabulary: Mapping[str, int] = MappingProxyType({})

    def trainable_modules(self) -> Mapping[str, torch.nn.Module]:
        return {}

    def posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encode(pictures)
        return mean, torch.zeros_like(mean)

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures[..., ::2, ::2].double()

    def decode(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(2, -1).repeat_interleave(2, -2).clamp(-1, 1)

    def tokenize(self, prompt: str) -> Tokens:
        words = tuple(f"{word}</w>" for word in prompt.split())
        ids = (1, *(sum(map(ord, word)) for word in words), 2)
        return Tokens(ids + (0,) * (self.max_tokens - len(ids)), words)

    def embed(self, prompts: Sequence[str]) -> Text:
        said = [sum(map(ord, prompt)) % 97 / 97 for prompt in prompts]
        return Text(torch.tensor(said, dtype=self.dtype)[:, None, None])

    def predict(self, latents, time, text, control=None) -> Tensor:
        self.nfe += len(latents)
        self.sizes.append(len(latents))
        said = text.tokens[..., None]
        x = latents.double()
        return x - 0.6 + torch.sin(3 * said + x + time) * (0.3 + said / 2)


def photo(seed: int = 0) -> Tensor:
    """A picture in [-1, 1] of the stub's size."""
    drawn = torch.rand(1, 3, 12, 8, generator=torch.Generator().manual_seed(seed))
    return drawn * 2 - 1
