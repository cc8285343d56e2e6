"""The settings of `learn`, and its presets. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers, Value, Values
from understudy.settings.run import DTYPES

LEARN_METHODS = ("dreambooth", "lora", "textual-inversion", "pivotal", "hiper")
LEARN_PRESET_NAMES = ("best", "paper", "photoswap")

# What each method starts from ("best"), and what others publish. A preset lists every value that
# its source publishes, so that it is the same for every model.
# DreamBooth: Ruiz et al. 2023, sections 3 and 4 and its supplement, for Stable Diffusion. LoRA: the
# values of common trainers; no paper learns subjects by it. Textual Inversion: Gal et al. 2022,
# section 4, at the batch of one GPU. HiPer: Han et al. 2023; its authors' code scales the tail by
# 0.8 in use, the paper does not. Pivotal: two words as in diffusers' advanced trainers; no
# paper has it for diffusion models. "photoswap": what Gu et al. 2023 learnt their subjects with.
_PLAIN: dict[str, Value] = {
    "batch_size": 1,
    "flip": False,
    "prior_source": "drawn",
    "find_masks": False,
}
_ALONE: dict[str, Value] = {"prior_samples": 0, "weight_decay": 0.0}
_PUBLISHED: dict[str, Value] = {
    "trained_layers": "all",
    "embedding_rate": 0.0,
    "preservation": "samples",
    "prior_weight": 1.0,
}
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
    "pivotal": {
        "steps": 1000,
        "learning_rate": 1e-4,
        "train_text_encoder": False,
        "vectors": 2,
        "embedding_rate": 0.03,
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
            **_PUBLISHED,
            "prompt": "a {subject}",
        },
        "photoswap": {
            **_PLAIN,
            "steps": 800,
            "learning_rate": 1e-6,
            "prior_samples": 200,
            "train_text_encoder": True,
            **_PUBLISHED,
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
    "pivotal": {
        "best": {},
        "paper": {**_PLAIN, "vectors": 2},
    },
    "hiper": {
        "best": {},
        "paper": {**_PLAIN, **_METHODS["hiper"], "tail": 5, "tail_scale": 1.0},
    },
}


# What says how class images are drawn: where it is given, they are drawn.
_DRAWING = ("prior_steps", "prior_guidance", "prior_temperature")


def _rule(values: Values, given: Values) -> Values:
    """Whoever says how class images are to be drawn wants them drawn."""
    drawn = "prior_source" not in given and any(name in given for name in _DRAWING)
    return {**values, "prior_source": "drawn"} if drawn else values


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnSettings(Settings):
    """Photos of a subject to a concept: DreamBooth, LoRA, Textual Inversion, pivotal, HiPer."""

    filling: ClassVar[Layers] = Layers(verb="learn", methods=_METHODS, presets=PRESETS, rule=_rule)

    method: str = knob("dreambooth", "learning method", choices=LEARN_METHODS)
    preset: str = knob(
        "best", "a named set of values, which options override", choices=LEARN_PRESET_NAMES
    )
    steps: int = knob(400, "optimiser steps", at_least=1, at_most=1_000_000)
    learning_rate: float = knob(5e-6, "AdamW's learning rate", at_least=0, at_most=1)
    batch_size: int = knob(1, "photos per batch; each comes with one class image", at_least=1)
    accumulate: int = knob(1, "gradient accumulation: batches per optimiser step", at_least=1)
    rank: int = knob(8, "lora, pivotal: rank", at_least=1, at_most=1024)
    alpha: float = knob(
        0.0,
        "lora, pivotal: alpha; the change is scaled by alpha / rank; 0 means alpha = rank",
        at_least=0,
    )
    targets: str = knob(
        "to_q,to_k,to_v,to_out.0",
        "lora, pivotal: layers of the network to adapt, by the end of their names",
    )
    vectors: int = knob(
        1, "textual-inversion, pivotal: number of embedding vectors", at_least=1, at_most=75
    )
    initialiser: str = knob(
        "", "textual-inversion, pivotal: word whose embedding is the start; empty: the class noun"
    )
    pivot: float = knob(
        0.5,
        "pivotal: share of the steps that train the embeddings; the others train the LoRA",
        at_least=0,
        at_most=1,
    )
    trained_layers: str = knob(
        "all",
        "dreambooth: layers of the network to train; cross-attention keeps more of the class, as "
        "other layers do not read the prompt",
        choices=("all", "cross-attention"),
    )
    embedding_rate: float = knob(
        0.0,
        "dreambooth, pivotal: learning rate of the identifier's embeddings, as a multiple of the "
        "root mean square of their table; 0 with dreambooth: --learning-rate",
        at_least=0,
        at_most=1,
    )
    tail: int = knob(5, "hiper: number of embeddings after the prompt", at_least=1, at_most=75)
    tail_scale: float = knob(
        0.8, "hiper: factor on these embeddings when they are used", at_least=0
    )
    preservation: str = knob(
        "samples",
        "prior preservation. samples: class images that the model drew, with their noise as the "
        "target (DreamBooth); sample-output: the same images, with the untrained model's output as "
        "the target; output: that target on the photos, without class images",
        choices=("samples", "sample-output", "output"),
    )
    class_contexts: str = knob(
        "",
        "with --preservation sample-output or output: endings of the class prompt, separated by "
        '";", such as "on the beach; in a forest". Each class image is given one of them or none, '
        "so that learning does not change what these words do",
    )
    prior_weight: float = knob(1.0, "weight of the prior-preservation loss (lambda)", at_least=0)
    prior_samples: int = knob(
        200, "class images for prior preservation, drawn by the model; 0: none", at_least=0
    )
    prior_source: str = knob(
        "drawn",
        "where class images come from: drawn by the model, or shipped with it if it has enough",
        choices=("drawn", "shipped"),
    )
    prior_steps: int = knob(25, "sampling steps of a class image", at_least=1, at_most=1000)
    prior_guidance: float = knob(7.5, "guidance scale of the class images", at_least=0)
    prior_temperature: float = knob(
        1.0, "scale of the sampling noise of the class images", at_least=0
    )
    train_text_encoder: bool = knob(True, "train the text encoder too")
    prompt: str = knob("a photo of a {subject}", "training prompt; must contain {subject}")
    varied_prompts: bool = knob(False, "draw the training prompt from several templates")
    flip: bool = knob(False, "also train on mirrored photos, unless the subject has writing")
    writing: str = knob(
        "auto",
        "whether the subject has writing, so that photos are never mirrored; auto: by the class "
        "noun and the captions",
        choices=("auto", "yes", "no"),
    )
    buckets: bool = knob(
        True,
        "train each photo at the aspect ratio nearest to its own; otherwise its middle is cropped "
        "to the model's shape",
    )
    crop_to: str = knob(
        "", "crop each photo around this word, such as the class noun or face; empty: no crop"
    )
    captions: bool = knob(True, "use NAME.txt beside a photo as its prompt")
    weight_duplicates: bool = knob(
        True, "near-duplicate photos together count as much as one photo"
    )
    crops: int = knob(0, "number of random crops of each photo to train on as well", at_least=0)
    find_masks: bool = knob(
        False, "find the subject in photos without a mask, by attention to its class noun"
    )
    mask_weight: float = knob(
        0.1, "loss weight outside the mask, for photos with a mask", at_least=0, at_most=1
    )
    snr_gamma: float = knob(
        0.0, "gamma of Min-SNR weighting, commonly 5; 0: no weighting", at_least=0
    )
    average: float = knob(
        0.0,
        "decay of the exponential moving average (EMA) of the weights; 0: none",
        at_least=0,
        at_most=0.99999,
    )
    optimiser: str = knob("adamw", "optimiser", choices=("adamw", "adamw8bit"))
    weight_decay: float = knob(1e-2, "AdamW's weight decay", at_least=0, at_most=1)
    clip: float = knob(1.0, "largest norm of the gradient (clipping); 0: no clipping", at_least=0)
    precision: str = knob(
        "float32",
        "precision of training; auto: bfloat16 on a CPU that supports it, else float32, "
        "with products in TF32 on a GPU",
        choices=("auto", *DTYPES),
    )
    gradient_checkpointing: bool = knob(
        False,
        "save memory by recomputing activations, also in text encoders where they or embeddings "
        "are trained; a third slower",
    )
    preview_every: int = knob(0, "steps between previews and their scores; 0: none", at_least=0)
    save_every: int = knob(100, "steps between checkpoints; 0: none", at_least=0)
    keep_checkpoints: int = knob(2, "number of checkpoints to keep", at_least=1)
    seed: int = knob(0, "seed of noise, timesteps and batches", at_least=0)
