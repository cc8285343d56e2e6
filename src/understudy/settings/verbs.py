"""Every knob once: one frozen dataclass a verb, read by the commands, checks and recipes.

Free of torch, so that ``understudy --help`` answers at once. Settings stop at the verb's door:
the functions below a verb take plain keyword arguments. A preset is a named set of values,
never a branch in the code: see `presets`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from understudy.errors import InputError
from understudy.settings.knobs import Settings, knob, suited
from understudy.settings.presets import (
    EDIT_PRESETS,
    LEARN_PRESETS,
    OFFICIAL_FRACTIONS,
    PROPORTIONAL,
    PUBLISHED_STEPS,
    SUITED_METHODS,
    SWAP_COUNTS,
    SWAP_PRESETS,
    Value,
    published_counts,
)

METHODS = ("null-text", "ddim", "negative-prompt", "direct")
EDIT_METHODS = ("p2p", "pnp", "hiper")
DTYPES = ("float32", "float16", "bfloat16")
LEARN_METHODS = ("dreambooth", "lora", "textual-inversion", "hiper")
LEARN_PRESET_NAMES = ("best", "paper", "photoswap")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateSettings(Settings):
    """Prompt to pictures: DDIM, or anything up to ancestral sampling, with guidance."""

    steps: int = knob(50, "denoising steps", at_least=1, at_most=1000)
    guidance: float = knob(7.5, "classifier-free guidance scale", at_least=0, at_most=50)
    negative: str = knob("", "prompt to be guided away from")
    eta: float = knob(0.0, "fresh noise a step: 0 DDIM, 1 ancestral", at_least=0, at_most=1)
    temperature: float = knob(1.0, "scale of that noise; less is plainer", at_least=0, at_most=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertSettings(Settings):
    """Photo to what the model can replay. Defaults: null-text inversion as its authors run it."""

    method: str = knob("null-text", "how to invert", choices=METHODS)
    steps: int = knob(50, "inversion steps; a swap replays as many", at_least=1, at_most=1000)
    guidance: float = knob(7.5, "guidance scale to replay with", at_least=0, at_most=50)
    inner_steps: int = knob(10, "null-text: optimiser steps a timestep", at_least=0, at_most=1000)
    epsilon: float = knob(1e-5, "null-text: early-stop loss", at_least=0)
    learning_rate: float = knob(1e-2, "null-text: Adam's rate at the first step", at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwapSettings(Settings):
    """Photoswap (Gu et al. 2023): for how many first steps each feature is the source's."""

    preset: str = knob(
        "best", "named set of values to start from", choices=("paper", "official", "best")
    )
    steps: int = knob(50, "denoising steps, as inverted", at_least=1, at_most=1000)
    guidance: float = knob(7.5, "guidance scale, as inverted", at_least=0, at_most=50)
    self_output_steps: int | float = knob(
        10,
        "steps, or share of them, that keep the source's self-attention output (the paper's phi)",
        at_least=0,
        share=True,
    )
    self_map_steps: int | float = knob(
        25,
        "steps, or share of them, that keep the source's self-attention map (the paper's M)",
        at_least=0,
        share=True,
    )
    cross_map_steps: int | float = knob(
        20,
        "steps, or share of them, that keep the source's cross-attention map (the paper's A)",
        at_least=0,
        share=True,
    )
    blend: bool = knob(False, "keep the photo's own latent outside the swapped subject")
    where: str = knob(
        "attention", "what finds the subject for --blend", choices=("attention", "difference")
    )
    budget: int = knob(
        0,
        "U-Net rows that may be spent on choosing the three numbers; 0 takes them as they are",
        at_least=0,
    )
    eta: float = knob(
        0.0, "fresh noise a step for the new subject: 0 DDIM, 1 ancestral", at_least=0, at_most=1
    )
    temperature: float = knob(1.0, "scale of that noise; less is plainer", at_least=0, at_most=2)
    noise_seed: int = knob(0, "seed of that noise", at_least=0)
    paste: bool = knob(False, "at the end, the photo's own pixels wherever it is unchanged")
    feather: int = knob(4, "pixels over which pasted and swapped picture meet", at_least=0)
    keep: float = knob(
        0.5,
        "gigabytes of the photo's features kept on disk for later swaps; 0 keeps none",
        at_least=0,
    )

    @classmethod
    def filled(cls, given: Mapping[str, Any], model: str = "") -> SwapSettings:
        """The preset's values where none is given, in proportion to the number of steps.

        Whoever gives one of the three numbers has chosen: then there is no budget for choosing.
        """
        given = {**suited(cls, model), **given}
        wanted = cls.from_dict(given)
        share = wanted.steps / PUBLISHED_STEPS
        named: dict[str, Value] = {
            name: round(int(value) * share) if name in SWAP_COUNTS else value
            for name, value in SWAP_PRESETS[wanted.preset].items()
        }
        if wanted.preset == "official":
            named |= published_counts(wanted.steps, *OFFICIAL_FRACTIONS)
        if any(name in given for name in SWAP_COUNTS):
            named["budget"] = 0
        if not given.get("blend", True):  # nothing says what to paste around
            named.pop("paste", None)
        return cls.from_dict({**named, **given})

    def check_place(self, masked: bool) -> None:
        """Raise InputError where a swap is to be pasted and nothing says what it took."""
        if self.paste and not (self.blend or masked):
            raise InputError("--paste needs to know where the subject is: add --blend or a --mask.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditSettings(Settings):
    """New words for a photo: prompt-to-prompt, plug-and-play (pnp) or HiPer."""

    method: str = knob("p2p", "how to edit", choices=EDIT_METHODS)
    preset: str = knob(
        "official", "named set of values to start from", choices=("paper", "official")
    )
    steps: int = knob(50, "denoising steps; p2p, hiper: as inverted", at_least=1, at_most=1000)
    guidance: float = knob(7.5, "guidance scale; null-text: as inverted", at_least=0, at_most=50)
    alignment: str = knob(
        "auto",
        "p2p: words replace words, or are added; auto: replace where there are as many",
        choices=("auto", "replace", "refine"),
    )
    cross_map_steps: int = knob(
        40, "p2p, hiper: steps that keep the source's cross-attention map", at_least=0
    )
    self_map_steps: int = knob(25, "steps that keep the source's self-attention map", at_least=0)
    self_map_side: int = knob(
        32, "p2p, hiper: side of the largest layers that keep it, 16 or 32", at_least=1
    )
    feature_steps: int = knob(40, "pnp: steps that keep the source's features", at_least=0)
    negative: str = knob("", "pnp: prompt to be guided away from")
    inversion_steps: int = knob(
        0, "pnp: steps of the inversion; 0 is as many as --steps", at_least=0, at_most=1000
    )
    blend_start: float = knob(0.2, "share of the run before blending", at_least=0, at_most=1)
    blend_threshold: float = knob(
        0.3, "share of the strongest attention that is the blended word's", at_least=0, at_most=1
    )
    keep_threshold: float = knob(0.3, "the same for words to keep", at_least=0, at_most=1)
    eta: float = knob(
        0.0, "p2p, hiper: fresh noise a step: 0 DDIM, 1 ancestral", at_least=0, at_most=1
    )
    temperature: float = knob(1.0, "scale of that noise; less is plainer", at_least=0, at_most=2)
    noise_seed: int = knob(0, "seed of that noise", at_least=0)
    tail_scale: float = knob(
        0.0, "factor on a learnt tail; 0 is what it was learnt for", at_least=0, at_most=10
    )

    @classmethod
    def filled(cls, given: Mapping[str, Any], model: str = "") -> EditSettings:
        """The preset's values where none is given, steps in proportion to their number."""
        given = {**suited(cls, model), **given}
        wanted = cls.from_dict(given)
        share = wanted.steps / PUBLISHED_STEPS
        named = {
            name: round(value * share) if name in PROPORTIONAL and isinstance(value, int) else value
            for name, value in EDIT_PRESETS[wanted.method][wanted.preset].items()
        }
        return cls.from_dict({**named, **given})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnSettings(Settings):
    """Photos of a subject to a concept: DreamBooth, LoRA, Textual Inversion or HiPer."""

    method: str = knob("dreambooth", "how to learn", choices=LEARN_METHODS)
    preset: str = knob("best", "named set of values to start from", choices=LEARN_PRESET_NAMES)
    steps: int = knob(400, "optimiser steps", at_least=1, at_most=1_000_000)
    learning_rate: float = knob(5e-6, "AdamW's learning rate", at_least=0, at_most=1)
    batch_size: int = knob(1, "photos at once, each with one class picture", at_least=1)
    accumulate: int = knob(1, "such batches a step; as a larger batch, in less memory", at_least=1)
    rank: int = knob(8, "lora: rank of the changes", at_least=1, at_most=1024)
    alpha: float = knob(0.0, "lora: changes count alpha / rank; 0 for the rank", at_least=0)
    targets: str = knob(
        "to_q,to_k,to_v,to_out.0", "lora: the U-Net's layers whose names end in one of these"
    )
    vectors: int = knob(1, "textual-inversion: words that are learnt", at_least=1, at_most=75)
    initialiser: str = knob("", "textual-inversion: word to begin as; the class noun if empty")
    tail: int = knob(5, "hiper: learnt embeddings behind the prompt", at_least=1, at_most=75)
    tail_scale: float = knob(0.8, "hiper: what they are multiplied by in use", at_least=0)
    prior_weight: float = knob(1.0, "weight of the class's own pictures (lambda)", at_least=0)
    prior_samples: int = knob(200, "class pictures drawn by the model itself", at_least=0)
    prior_steps: int = knob(25, "sampling steps of a class picture", at_least=1, at_most=1000)
    prior_guidance: float = knob(7.5, "guidance scale of the class pictures", at_least=0)
    prior_temperature: float = knob(1.0, "scale of the noise they are drawn with", at_least=0)
    train_text_encoder: bool = knob(True, "train the text encoder too")
    prompt: str = knob("a photo of a {subject}", "what the photos show; keep {subject} in it")
    varied_prompts: bool = knob(False, "say it in several ways, drawn at random")
    flip: bool = knob(False, "mirrored photos count as photos too")
    crops: int = knob(0, "random crops of each photo that count as photos too", at_least=0)
    mask_weight: float = knob(
        0.1, "what a photo counts outside its mask, if it has one", at_least=0, at_most=1
    )
    snr_gamma: float = knob(0.0, "Min-SNR's gamma, commonly 5; 0: plain loss", at_least=0)
    average: float = knob(
        0.0, "decay of the weights' running average (EMA); 0: none", at_least=0, at_most=0.99999
    )
    optimiser: str = knob("adamw", "optimiser", choices=("adamw", "adamw8bit"))
    weight_decay: float = knob(1e-2, "AdamW's weight decay", at_least=0, at_most=1)
    clip: float = knob(1.0, "largest norm of the gradient; 0: any", at_least=0)
    precision: str = knob(
        "float32",
        "arithmetic of training; auto: bfloat16 if the hardware has it, else float32",
        choices=("auto", *DTYPES),
    )
    gradient_checkpointing: bool = knob(False, "much less memory, a third slower")
    preview_every: int = knob(0, "steps between looks (previews, scores); 0: none", at_least=0)
    save_every: int = knob(100, "steps between checkpoints; 0: none", at_least=0)
    keep: int = knob(2, "checkpoints that stay", at_least=1)
    seed: int = knob(0, "seed of noise, timesteps and batches", at_least=0)

    @classmethod
    def filled(cls, given: Mapping[str, Any], model: str = "") -> LearnSettings:
        """The values given; then those of the preset, if one is named, or else what suits the
        model; then the method's own. InputError for a preset the method does not have."""
        wanted = cls.from_dict(given)
        presets = LEARN_PRESETS[wanted.method]
        if wanted.preset not in presets:
            raise InputError(
                f"--preset {wanted.preset} is not for --method {wanted.method}, which has: "
                f"{', '.join(presets)}."
            )
        ours = suited(cls, model)
        ours = {**ours, **SUITED_METHODS.get(model, {}).get(wanted.method, {})}
        named = presets[wanted.preset] if "preset" in given else ours
        return cls.from_dict({**presets["best"], **named, **given})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Which model, and on what: the same for every command that uses one."""

    model: str = knob("toybox", "built-in name, folder, checkpoint file or hub id")
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps; auto takes a GPU if there is one")
    dtype: str = knob("float32", "precision of the weights", choices=DTYPES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoSettings(Settings):
    """The main job on toys, small enough for two cores and three minutes."""

    seed: int = knob(0, "which toy is learnt, and whose place it takes", at_least=0)
    photos: int = knob(4, "photos to learn from", at_least=1, at_most=20)
    learn_steps: int = knob(100, "optimiser steps of learning", at_least=1)
    learning_rate: float = knob(3e-4, "AdamW's learning rate", at_least=0, at_most=1)
    prior_samples: int = knob(16, "class pictures drawn by the model itself", at_least=0)
    steps: int = knob(25, "inversion and swap steps", at_least=1, at_most=1000)
    guidance: float = knob(4.0, "guidance scale of inversion and swap", at_least=0, at_most=50)
