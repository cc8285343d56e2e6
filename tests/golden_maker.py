"""Makes a golden folder: cases of every kind, their numbers computed by plain loops.

    python tests/golden_maker.py FOLDER [--seed N]

The plain loops (here, `plain_edit`, `plain_drag`, `benchmarks.plain`) share no attention, inversion
or tracking code with the package. Kinds of cases, layout and names are those of the numbers
recorded from the published programs; sizes, steps, guidance, prompts, words and the fields that a
record leaves out are others. The seed changes what is drawn; `tests/golden` has seed 0.
Not made: projection, tuning, rosinality's names and checkpoint layouts, which record programs.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file
from torch import Tensor, nn

from golden_maker_drag import make_drag
from golden_model import BOS, EOS, LENGTH
from understudy.diffusion.ddpm import DDPMSchedule
from understudy.diffusion.text import Text

Arrays = dict[str, Tensor]
WIDTH = 16  # of the text
UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [8, 16, 16, 16],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
PIECES = {"rhinoceros": ["rhino", "cer", "os"], "lasagne": ["las", "agne"]}
PROMPTS = (
    ("a cat on a mat", "a sks cat on a mat"),
    ("two dogs, asleep", "two lasagne dogs, asleep"),
    ("a photo of a horse", "a photo of a rhinoceros"),
    ("soup", "soup with bread and cheese"),
    ("a bird in a red tree", "a bird in a tree"),
    ("a fox near a lake", "a wolf near a river"),
)


def tokens_of(prompt: str) -> list[str]:
    """Made-up pieces: a word each, a comma for itself, and what PIECES cuts."""
    words = prompt.lower().replace(",", " ,").split()
    return [piece for word in words for piece in PIECES.get(word, [word])]


class Maker:
    """A folder in the making: its network, its texts and a source of chance."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, np.random.RandomState(seed)
        self.draws = torch.Generator().manual_seed(seed)
        (folder / "model").mkdir(parents=True, exist_ok=True)
        self.vocabulary: dict[str, int] = {}
        self.texts: dict[str, tuple[str, list[int]]] = {}
        self._network(seed)
        self._write_texts()

    def noise(self, *shape: int) -> Tensor:
        """Standard normal numbers, exact in float32."""
        return torch.randn(shape, generator=self.draws)

    def choice(self, *values: Any) -> Any:
        return values[self.random.randint(len(values))]

    def _network(self, seed: int) -> None:
        from diffusers import UNet2DConditionModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DConditionModel(**UNET)
        with torch.no_grad():
            for name, weight in unet.named_parameters():
                if name.endswith(("to_q.weight", "to_k.weight")):
                    weight.mul_(3)  # maps that differ from row to row, as in a trained network
                if name == "conv_out.weight":
                    weight.mul_(0.3)  # a tame prediction: errors must not grow from step to step
        state = {name: tensor.half() for name, tensor in unet.state_dict().items()}
        save_file(state, self.folder / "model" / "unet.safetensors")
        self.write("model/config", UNET)
        steps = torch.arange(1000, dtype=torch.float64)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
        waves = torch.exp(-np.log(10000) * torch.arange(4, dtype=torch.float64) / 4)
        angles = steps[:, None] * waves
        self.alphas = (1 - betas).cumprod(0).float()
        self.times = torch.cat([angles.cos(), angles.sin()], dim=1).float()
        tables = {"alphas_cumprod_float32": self.alphas, "time_projection": self.times}
        save_file(tables, self.folder / "model" / "tables.safetensors")
        unet.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        unet.time_proj = Times(self.times)
        self.unet = unet.double().eval().requires_grad_(False)

    def _write_texts(self) -> None:
        prompts = ["", *dict.fromkeys(prompt for pair in PROMPTS for prompt in pair)]
        for n, prompt in enumerate(prompts):
            pieces = tokens_of(prompt)
            for piece in pieces:
                self.vocabulary.setdefault(piece, 300 + 7 * len(self.vocabulary))
            self.texts[prompt] = (f"t{n:02d}", [BOS, *(self.vocabulary[p] for p in pieces), EOS])
        entries = [
            {"id": i, "prompt": prompt, "ids": ids} for prompt, (i, ids) in self.texts.items()
        ]
        self.write("text", entries)
        words = {token: self.noise(WIDTH) for token in (BOS, EOS, *self.vocabulary.values())}
        places = 0.5 * self.noise(LENGTH, WIDTH)
        self.embeddings: Arrays = {}
        for name, ids in self.texts.values():
            rows = torch.stack([words[i] for i in [*ids, *[EOS] * (LENGTH - len(ids))]]) + places
            self.embeddings[name] = nn.functional.layer_norm(rows + rows.cumsum(0) / 9, (WIDTH,))
        save_file(self.embeddings, self.folder / "text.safetensors")

    def write(self, name: str, value: Any) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")

    def save(self, name: str, arrays: Arrays, cases: Any = None) -> None:
        tensors = {key: value.detach().clone().contiguous() for key, value in arrays.items()}
        save_file(tensors, self.folder / f"{name}.safetensors")
        if cases is not None:
            self.write(name, cases)

    def name(self, prompt: str) -> str:
        return self.texts[prompt][0]

    def text(self, prompt: str) -> Tensor:
        return self.embeddings[self.name(prompt)].double()[None]


class Times(nn.Module):
    """The table of time features in place of the sines."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, timesteps: Tensor) -> Tensor:
        return self.table[timesteps]


class Sampler:
    """DDIM in closed form over the maker's network, and what the plain loops ask a model for."""

    def __init__(self, maker: Maker, steps: int, offset: int = 0) -> None:
        self.maker, self.steps = maker, steps
        self.unet = maker.unet
        self.ratio = 1000 // steps
        self.timesteps = [n * self.ratio + offset for n in reversed(range(steps))]
        self.times = (*self.timesteps, self.timesteps[-1] - self.ratio)
        self.schedule = DDPMSchedule(maker.alphas, offset, False)
        self.reset()

    def reset(self) -> None:
        """Plain attention: no maps are changed."""
        for _, module in self.unet.named_modules():
            if hasattr(module, "set_processor"):
                module.set_processor(AttnProcessor())

    def predict_noise(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        times = torch.full((len(latents),), timestep)
        return self.unet(latents, times, text.expand(len(latents), -1, -1)).sample

    def predict(self, latents: Tensor, time: int, text: Text, control: None = None) -> Tensor:
        return self.predict_noise(latents, time, text.tokens)

    def embed(self, prompts: Sequence[str]) -> Text:
        return Text(torch.cat([self.maker.text(prompt) for prompt in prompts]))

    def alpha(self, timestep: int) -> Tensor:
        return self.maker.alphas.double()[max(timestep, 0)]

    def move(self, x: Tensor, eps: Tensor, start: int, end: int) -> Tensor:
        """From one timestep to another along a straight line of noise."""
        a, b = self.alpha(start), self.alpha(end)
        return b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps

    @torch.no_grad()
    def invert(self, x0: Tensor, text: Tensor) -> list[Tensor]:
        """x0 first, the noise last."""
        path = [x0.double()]
        for t in reversed(self.timesteps):
            path.append(
                self.move(path[-1], self.predict_noise(path[-1], t, text), t - self.ratio, t)
            )
        return path

    @torch.no_grad()
    def sample(
        self, x: Tensor, text: Tensor, nulls: Sequence[Tensor] | None = None, guidance: float = 1
    ) -> list[Tensor]:
        """The noise first; nulls: an unconditional embedding a step."""
        path = [x]
        for n, t in enumerate(self.timesteps):
            eps = self.predict_noise(path[-1], t, text)
            if nulls is not None:
                plain = self.predict_noise(path[-1], t, nulls[n])
                eps = plain + guidance * (eps - plain)
            path.append(self.move(path[-1], eps, t, t - self.ratio))
        return path


def aligned(source: list[int], target: list[int]) -> tuple[list[int], list[int]]:
    """mapper and alphas by Python's own matcher; the published where matches are unique."""
    mapper = [-1] * len(target) + [*range(len(target), LENGTH)]
    blocks = difflib.SequenceMatcher(None, source, target, autojunk=False).get_matching_blocks()
    for block in blocks:
        for n in range(block.size):
            mapper[block.b + n] = block.a + n
    return mapper, [int(place >= 0) for place in mapper]


def make_ddim(maker: Maker) -> None:
    arrays: Arrays = {}
    cases: dict[str, Any] = {}
    for n, (steps, side) in enumerate(((7, 16), (5, 24), (9, 8))):
        name, prompt, guidance = f"ddim{n}", PROMPTS[n][0], maker.choice(1.0, 2, 4.5)
        sampler, x0 = Sampler(maker, steps, n % 2), 0.5 * maker.noise(4, side, side)
        text, empty = maker.text(prompt), maker.text("")
        path = sampler.invert(x0[None], text)
        walked = sampler.sample(path[-1], text, [empty] * steps, guidance)
        stored = [0, 2, steps]
        cases[name] = {
            "prompt": prompt,
            "cond": maker.name(prompt),
            "steps": steps,
            "guidance": guidance,
            "steps_offset": n % 2,
            "stored_indices": stored,
        }
        arrays[f"{name}/x0"] = x0
        arrays[f"{name}/inversion"] = torch.cat([path[i] for i in stored])
        if n != 1:
            arrays[f"{name}/cfg_sampling"] = torch.cat([walked[i] for i in stored])
        arrays[f"{name}/reconstruction"] = sampler.sample(path[-1], text)[-1][0]
    maker.save("a_ddim", arrays, cases)


def make_null_text(maker: Maker) -> None:
    arrays: Arrays = {}
    cases: dict[str, Any] = {}
    for n, (steps, inner) in enumerate(((4, 2), (3, 3))):
        name, prompt, guidance = f"null{n}", PROMPTS[n + 1][0], (3.0, 6)[n]
        sampler, x0 = Sampler(maker, steps, n), 0.5 * maker.noise(4, 8, 16)
        text, null = maker.text(prompt), maker.text("")
        wanted, nulls, losses = sampler.invert(x0[None], text), list[Tensor](), list[list[float]]()
        walked = [wanted[-1]]
        for i, t in enumerate(sampler.timesteps):
            null = null.detach().clone().requires_grad_()
            adam = torch.optim.Adam([null], lr=1e-2 * (1 - i / 100))
            eps = sampler.predict_noise(walked[-1], t, text)
            losses.append([])
            for _ in range(inner):
                plain = sampler.predict_noise(walked[-1], t, null)
                after = sampler.move(
                    walked[-1], plain + guidance * (eps - plain), t, t - sampler.ratio
                )
                loss = (after - wanted[steps - 1 - i]).square().mean()
                losses[-1].append(loss.item())
                adam.zero_grad()
                if loss.requires_grad:
                    loss.backward()
                    adam.step()
            nulls.append(null.detach())
            plain = sampler.predict_noise(walked[-1], t, nulls[-1]).detach()
            eps = plain + guidance * (eps - plain)
            walked.append(sampler.move(walked[-1], eps, t, t - sampler.ratio))
        moving = range(steps - (sampler.timesteps[-1] == 0))
        cases[name] = {
            "prompt": prompt,
            "cond": maker.name(prompt),
            "steps": steps,
            "inner_steps": inner,
            "epsilon": -1.0,
            "guidance": guidance,
            "steps_offset": n,
            "null_indices": [*moving],
        }
        arrays[f"{name}/x0"] = x0
        arrays[f"{name}/null_embeddings"] = torch.cat([nulls[i] for i in moving])
        if n:
            cases[name]["reconstruction_indices"] = [0, steps]
            arrays[f"{name}/reconstruction"] = torch.cat([walked[0], walked[-1]])
            arrays[f"{name}/losses"] = torch.tensor(losses, dtype=torch.float64)
            arrays[f"{name}/x_T"] = wanted[-1][0]
    maker.save("b_null_text", arrays, cases)


def make_words(maker: Maker) -> None:
    pairs, arrays = list[dict[str, Any]](), dict[str, np.ndarray]()
    for n, (source, target) in enumerate(PROMPTS):
        ids = [maker.texts[prompt][1] for prompt in (source, target)]
        mapper, alphas = aligned(*ids)
        pair = {"id": f"w{n}", "source": source, "target": target}
        for side, prompt, row in zip(("source", "target"), (source, target), ids, strict=True):
            pieces = tokens_of(prompt)
            pair |= {f"{side}_ids": row, f"{side}_pieces": ["<start>", *pieces, "<end>"]}
            if n % 2 == 0:
                words = [word for word in prompt.split(" ") if word in pieces]
                pair[f"{side}_word_positions"] = {
                    word: [1 + i for i, piece in enumerate(pieces) if piece == word]
                    for word in words
                } | {"zebra": []}
        pairs.append(pair)
        arrays[f"w{n}/mapper"] = np.array(mapper)
        arrays[f"w{n}/alphas"] = np.array(alphas, np.float32)
    maker.write("e_alignment", {"pairs": pairs})
    np.savez_compressed(maker.folder / "e_alignment.npz", **arrays)


def make(folder: Path, seed: int) -> None:
    """Write the whole folder."""
    from golden_maker_edits import make_edits

    maker = Maker(folder / "diffusion", seed)
    make_ddim(maker)
    make_null_text(maker)
    make_words(maker)
    make_edits(maker)
    make_drag(folder / "drag", seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent))  # `benchmarks` holds the plain swap
    make(given.folder, given.seed)
    total = sum(file.stat().st_size for file in given.folder.rglob("*") if file.is_file())
    print(f"{given.folder}: {total / 1e6:.2f} MB")
