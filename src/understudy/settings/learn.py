"""The settings of `learn`, and its presets. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers, Value
from understudy.settings.run import DTYPES

LEARN_METHODS = ("dreambooth", "lora", "textual-inversion", "hiper")
LEARN_PRESET_NAMES = ("best", "paper", "photoswap")

# What each method starts from ("best"), and what others publish. A preset lists every value that
# its source publishes, so that it is the same for every model.
# DreamBooth: Ruiz et al. 2023, sections 3 and 4 and its supplement, for Stable Diffusion. LoRA: the
# values of common trainers; no paper learns subjects by it. Textual Inversion: Gal et al. 2022,
# section 4, at the batch of one GPU. HiPer: Han et al. 2023; its authors' code scales the tail by
# 0.8 in use, the paper does not. "photoswap": what Gu et al. 2023 learnt their subjects with.
_PLAIN: dict[str, Value] = {"batch_size": 1, "flip": False}
_ALONE: dict[str, Value] = {"prior_samples": 0, "weight_decay": 0.0}
_METHODS: dict[str, dict[str, Value]] = {
    "dreambooth": {},
    "lora": {"steps": 500, "learning_rate": 1e-4},
    "textual-inversion": {
        **_ALONE,
        "varied_prompts": True,
        "train_text_encoder": False,
        "steps": 1000,
        "learning_rate": 5e-4,
        "batch_size": 4,
    },
    "hiper": {
        **_ALONE,
        "steps": 1000,
        "learning_rate": 5e-3,
        "train_text_encoder": False,
        "clip": 0.0,
    },
}
PRESETS: dict[str, dict[str, dict[str, Value]]] = {
    "dreambooth": {
        "best": {},
        "paper": {
            **_PLAIN,
            "steps": 1000,
            "learning_rate": 5e-6,
            "prior_samples": 1000,
            "prior_steps": 50,
            "train_text_encoder": False,
            "prompt": "a {subject}",
        },
        "photoswap": {
            **_PLAIN,
            "steps": 800,
            "learning_rate": 1e-6,
            "prior_samples": 200,
            "train_text_encoder": True,
        },
    },
    "lora": {
        "best": {},
        "paper": {
            **_PLAIN,
            "steps": 500,
            "learning_rate": 1e-4,
            "rank": 4,
            "train_text_encoder": False,
        },
    },
    "textual-inversion": {
        "best": {},
        "paper": {**_PLAIN, "vectors": 1, "steps": 6100, "learning_rate": 5e-3, "batch_size": 2},
        "photoswap": {**_METHODS["textual-inversion"], "vectors": 1, "flip": False},
    },
    "hiper": {
        "best": {},
        "paper": {**_PLAIN, **_METHODS["hiper"], "tail": 5, "tail_scale": 1.0},
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnSettings(Settings):
    """Photos of a subject to a concept: DreamBooth, LoRA, Textual Inversion or HiPer."""

    filling: ClassVar[Layers] = Layers(verb="learn", methods=_METHODS, presets=PRESETS)

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
