"""Flow transformers from a diffusers folder, behind the DiffusionModel protocol.

Knows no names and no downloads: registry.py finds the folder, load.py reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.attention.plan import AttentionControl
from understudy.attention.site import AttentionSite
from understudy.diffusion.schedule import Time
from understudy.diffusion.text import Text, Tokens
from understudy.errors import InputError
from understudy.models.compiled import Compiled, recompiled
from understudy.models.fingerprint import Fingerprint
from understudy.models.folder import read_json
from understudy.models.interface import References
from understudy.models.transformer.assemble import (
    codec_of,
    guidance_of_parts,
    network_of,
    reader_of,
)
from understudy.models.transformer.encoders import Encoder
from understudy.models.transformer.injection import injecting
from understudy.models.transformer.load import FlowParts, load_flow_parts
from understudy.models.transformer.network import rows_of_time
from understudy.models.transformer.placement import (
    Memory,
    at_work,
    free_memory,
    place,
    suited_memory,
)
from understudy.models.transformer.quantised import Bits, QuantisedLinear, digest, quantise
from understudy.models.word_tables import word_tables

NATIVE = 1024  # pixels, where neither network nor autoencoder says a size


class FlowTransformer:
    """A DiffusionModel (see interface.py) over a flow transformer, its autoencoder and encoders.

    parts: networks in evaluation mode whose parameters ask for no gradient. The network outputs
    the velocity, noise - clean; a time is sigma, the share of noise.
    """

    def __init__(
        self,
        name: str,
        parts: FlowParts,
        fingerprint: Fingerprint,
        *,
        device: torch.device | None = None,
        memory: Memory = "all",
        unmerged: Mapping[str, QuantisedLinear] | None = None,
    ) -> None:
        first = next(parts.networks["transformer"].parameters())
        self._device, self._dtype = device or first.device, first.dtype
        self.memory: Memory = memory
        self.unmerged = dict(unmerged or {})
        self._embedded: dict[tuple[object, ...], Text] = {}
        self.name, self.family, self.schedule = name, parts.family, parts.schedule
        self.networks = dict(parts.networks)
        self.folder = fingerprint.folder
        self._fingerprint = fingerprint
        self._evaluated = 0
        self.network = network_of(parts)
        self.codec = codec_of(parts)
        self.text = reader_of(name, parts)
        self.guidance = guidance_of_parts(parts)
        self.vocabulary: Mapping[str, int] = self.text.vocabulary
        self.max_tokens = self.text.max_tokens
        self.downscale, self.latent_channels = self.codec.downscale, self.codec.channels
        self.picture_size = (self._side(), self._side())

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        name: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        bits: Bits | None = None,
        memory: Memory | None = None,
    ) -> FlowTransformer:
        """Load a folder as diffusers' save_pretrained writes it.

        bits: of the weights in the transformer's blocks; dtype is that of the arithmetic then.
        memory: see placement.py; None = the first that fits the device.

        Raises ModelError when parts are missing, do not fit each other, or are of another family.
        """
        parts = load_flow_parts(folder, dtype)
        where = torch.device(device)
        for network in parts.networks.values():
            network.eval().requires_grad_(False)
        layers = quantise(parts.networks["transformer"], bits) if bits else {}
        if memory is None:
            sizes = {part: _bytes(network) for part, network in parts.networks.items()}
            memory = suited_memory(sizes, free_memory(where))
        fingerprint = Fingerprint(folder, parts.networks)
        unmerged = {f"transformer.{path}.weight": layer for path, layer in layers.items()}
        model = cls(
            name or str(folder), parts, fingerprint, device=where, memory=memory, unmerged=unmerged
        )
        place(parts.networks, where, memory)
        fingerprint.settled()
        return model

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the folder's files; another one while the weights differ from those."""
        found, beside = self._fingerprint.current(), digest(self.unmerged)
        return hashlib.sha256(f"{found}{beside}".encode()).hexdigest() if beside else found

    @property
    def base_fingerprint(self) -> str:
        """SHA-256 of the folder's files, whatever concept is applied."""
        return self._fingerprint.base()

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def nfe(self) -> int:
        """Rows of the transformer evaluated so far."""
        return self._evaluated

    @property
    def sites(self) -> tuple[AttentionSite, ...]:
        """The attention layers, in order of execution."""
        return self.network.sites

    @property
    def references(self) -> int:
        """How many reference pictures it reads at most; 0 where it was not trained to."""
        kind = str(read_json(self.folder / "model_index.json").get("_class_name", ""))
        return self.family.references if kind in self.family.refers else 0

    @property
    def multiple(self) -> int:
        """Height and width of a picture in pixels are multiples of this."""
        return self.downscale * self.network.patch

    @property
    def text_multiple(self) -> int:
        """The network rounds a prompt's number of tokens up to a multiple of this."""
        return int(getattr(self.text, "multiple", 1))

    def compile(self, on: bool = True, *, backend: str | None = None) -> Compiled | None:
        """Run the transformer compiled from now on where no control takes part, or as it is.

        A transformer whose blocks come and go between devices is never compiled. backend: as of
        torch.compile. Returns what runs it; None = as it is.
        """
        module = self.networks["transformer"]
        on = on and self.memory == "all"
        self.network.compiled = recompiled(self.network.compiled, module, on, backend)
        return self.network.compiled

    def trainable_modules(self) -> dict[str, nn.Module]:
        """The parts that learning may change: the transformer and CLIP's text encoders."""
        clips = [part for part, kind in self.family.encoders.items() if kind.startswith("CLIP")]
        return {
            part: self.networks[part] for part in ("transformer", *clips) if part in self.networks
        }

    @property
    def word_encoders(self) -> Mapping[str, Encoder]:
        """The encoders whose words can be learnt, by part (see models/word_tables.py)."""
        parts = {id(network): part for part, network in self.networks.items()}
        return {parts[id(encoder.network)]: encoder for encoder in self.text.encoders}

    # Pictures and latents

    def posterior(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c lh lw"], Float[Tensor, "b c lh lw"]]:
        """Mean and standard deviation of the latents, both scaled, float32 or finer."""
        height, width = pictures.shape[-2:]
        self._check_size(height, width)
        with at_work(self._device, self.memory, self.networks["vae"]):
            return self.codec.posterior(pictures)

    def encode(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c lh lw"]:
        """The posterior's mean, scaled, float32 or finer."""
        return self.posterior(pictures)[0]

    def decode(self, latents: Float[Tensor, "b c lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1], float32."""
        with at_work(self._device, self.memory, self.networks["vae"]):
            return self.codec.decode(latents)

    # Text

    def tokenize(self, prompt: str) -> Tokens:
        """The prompt's tokens in the first encoder; PromptError when they are too many."""
        return self.text.tokenize(prompt)

    def readings(self, prompt: str) -> tuple[Tokens, ...]:
        """The prompt's tokens in every encoder whose states attention reads, in order."""
        return self.text.readings(prompt)

    def embed(self, prompts: Sequence[str]) -> Text:
        """All that the network reads of prompts.

        Where text encoders come and go, a prompt is read once: its text is kept on the device.
        """
        if self.memory == "all":
            return self.text.embed(prompts)
        encoders = [self.networks[part] for part in self.family.encoders if part in self.networks]
        values = [value for network in encoders for value in network.parameters()]
        versions = sum(value._version for value in values)  # pyright: ignore[reportPrivateUsage]
        key = (*prompts, versions, *(value.data_ptr() for value in values[:1]))
        learning = torch.is_grad_enabled() and any(value.requires_grad for value in values)
        # While words are learnt, hooks on the tables put their rows in place.
        learning |= any(own.replaced for own in word_tables(self).values())
        if learning and torch.is_grad_enabled():
            # The backward pass reads the encoders' weights once more, on the device: they stay
            # until prompts are read without gradients.
            for network in encoders:
                network.to(self._device)
            return self.text.embed(prompts)
        if key not in self._embedded or learning:
            with at_work(self._device, self.memory, *encoders):
                text = self.text.embed(prompts)
            if learning:
                return text
            self._embedded[key] = text
        return self._embedded[key].clone()

    # Denoising

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        time: Time,
        text: Text,
        control: AttentionControl | None = None,
        references: References = (),
    ) -> Float[Tensor, "r c h w"]:
        """The velocity, noise - clean, of the latents' dtype; time is sigma.

        references: latents of pictures that every row reads beside its own (see `references`).
        Raises InputError for more of them than it reads, ModelError when an attention layer did not
        ask the control.
        """
        network = self.network
        if references and len(references) > self.references:
            raise InputError(
                f"{self.name} reads at most {self.references} reference pictures. "
                f"Got {len(references)}."
            )
        height, width = latents.shape[-2:]
        self._check_size(height * self.downscale, width * self.downscale)
        call = None
        if control is not None:
            call = network.call(control, (height, width), text, references)
        sigma = rows_of_time(time, latents)
        with network.calls.during(call, network.sites), injecting(network.module, call):
            output = network.velocity(
                latents.to(self.dtype), sigma, text.to(self.dtype), references
            )
        self._evaluated += len(latents)
        return output.to(latents.dtype)

    def _side(self) -> int:
        """Pixels along a side of the pictures that the model was trained on."""
        cells = getattr(self.network.config, "sample_size", None)
        if cells is not None:
            return int(cells) * self.downscale
        return int(getattr(cast(Any, self.networks["vae"]).config, "sample_size", NATIVE))

    def _check_size(self, height: int, width: int) -> None:
        if height % self.multiple or width % self.multiple:
            raise InputError(
                f"A picture's height and width must be multiples of {self.multiple} "
                f"for {self.name}. Got {height} x {width}."
            )


def _bytes(network: nn.Module) -> float:
    tensors = [*network.parameters(), *network.buffers()]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
