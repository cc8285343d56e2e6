"""Named values: what each method begins with, what others publish, what suits a model.

A preset is a set of values, never a branch in the code; `settings` reads it.
"""

from __future__ import annotations

Value = bool | int | float | str

# What each method begins with ("best", the default), and what others publish.
# DreamBooth: Ruiz et al. 2023, sections 3 and 4 and its supplement, for Stable Diffusion. LoRA: the
# values of common trainers; no paper learns subjects by it. Textual Inversion: Gal et al. 2022,
# section 4, at the batch of one GPU. HiPer: Han et al. 2023; its authors' code scales the tail by
# 0.8 in use, the paper does not. "photoswap": what Gu et al. 2023 learnt their subjects with.
_ALONE: dict[str, Value] = {"prior_samples": 0, "weight_decay": 0.0}
_WORDS: dict[str, Value] = {**_ALONE, "varied_prompts": True, "train_text_encoder": False}
LEARN_PRESETS: dict[str, dict[str, dict[str, Value]]] = {
    "dreambooth": {
        "best": {},
        "paper": {
            "steps": 1000,
            "prior_samples": 1000,
            "prior_steps": 50,
            "train_text_encoder": False,
            "prompt": "a {subject}",
        },
        "photoswap": {"steps": 800, "learning_rate": 1e-6, "train_text_encoder": True},
    },
    "lora": {
        "best": {"steps": 500, "learning_rate": 1e-4},
        "paper": {"rank": 4, "train_text_encoder": False},
    },
    "textual-inversion": {
        "best": {**_WORDS, "steps": 1000, "learning_rate": 5e-4, "batch_size": 4},
        "paper": {"steps": 6100, "learning_rate": 5e-3, "batch_size": 2},
        "photoswap": {},
    },
    "hiper": {
        "best": {
            **_ALONE,
            "steps": 1000,
            "learning_rate": 5e-3,
            "train_text_encoder": False,
            "clip": 0.0,
        },
        "paper": {"tail_scale": 1.0},
    },
}

# What suits a built-in model better than defaults meant for Stable Diffusion; measured on toys that
# are not among the held-out cases of benchmarks/.
SUITED: dict[str, dict[str, dict[str, Value]]] = {
    "toybox": {
        "LearnSettings": {
            "steps": 100,
            "learning_rate": 3e-4,
            "batch_size": 2,
            "prior_samples": 16,
            "prior_steps": 12,
            "prior_guidance": 4.0,
            "prior_temperature": 0.85,
            "flip": True,
            "precision": "auto",
        },
        "GenerateSettings": {"guidance": 5.0, "eta": 1.0, "temperature": 0.9},
        "InvertSettings": {"guidance": 3.0, "learning_rate": 0.03},
        "SwapSettings": {"guidance": 4.0},
        "EditSettings": {"guidance": 3.0, "inversion_steps": 0, "negative": ""},
    },
    "toybox-gan": {
        "DragSettings": {"learning_rate": 2e-2, "feature_resolution": 32},
        "ProjectSettings": {"learning_rate": 0.05, "tune_rate": 3e-3, "l2_weight": 5.0},
    },
}

# What the methods of learning other than DreamBooth want besides, for the same model.
SUITED_METHODS: dict[str, dict[str, dict[str, Value]]] = {
    "toybox": {
        "lora": {"learning_rate": 1e-3, "rank": 16, "steps": 250, "batch_size": 4},
        "textual-inversion": {
            "vectors": 4,
            "steps": 400,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "prior_samples": 0,
        },
        "hiper": {
            "steps": 400,
            "batch_size": 4,
            "learning_rate": 2e-2,
            "prior_samples": 0,
            "flip": False,
        },
    }
}

OFFICIAL_FRACTIONS = (0.8, 0.0, 0.6)  # phi, M, A: first example of the authors' notebook
PUBLISHED_STEPS = 50  # what the numbers of steps below were published for
SWAP_COUNTS = ("self_output_steps", "self_map_steps", "cross_map_steps")
# "paper": Gu et al. 2023, section 4. "official": the first example of the authors' notebook
# (fractions .8, 0, .6 of 50 steps by their rules of rounding), which blends latents besides.
# "best": ours. Fewer steps keep the source's features, and the blend keeps the background. How many
# is chosen case by case within the budget (swap/schedule_search.py). The inverted noise carries the
# source's colours and shape; with eta 0.8 each step replaces a part of it by fresh noise, so that
# the new subject can take its own. The photo's own pixels are pasted around the subject.
SWAP_PRESETS: dict[str, dict[str, int | float | str]] = {
    "paper": {"self_output_steps": 10, "self_map_steps": 25, "cross_map_steps": 20, "blend": False},
    "official": {
        "self_output_steps": 41,
        "self_map_steps": 40,
        "cross_map_steps": 30,
        "blend": True,
    },
    "best": {
        "self_output_steps": 5,
        "self_map_steps": 12,
        "cross_map_steps": 10,
        "blend": True,
        "where": "difference",
        "budget": 300,
        "paste": True,
        "eta": 0.8,
    },
}


def published_counts(
    steps: int, self_output: float, self_map: float, cross_map: float
) -> dict[str, int]:
    """Photoswap's three step counts from the fractions of the authors' code, scaled to `steps`.

    phi runs through step int(n * phi) inclusive, so that 0 still swaps step 0 and only a negative
    fraction swaps none; M ends at int(n * (M + phi)); A ends at int((n + 1) * A). Products are
    truncated in floating point as there (.3 + .6 of 50 is 44). The code itself has 50 in the
    place of n.
    """
    ends = (
        int(self_output * steps) + 1,
        int(steps * (self_map + self_output)),
        int(cross_map * (steps + 1)),
    )
    return {name: min(max(end, 0), steps) for name, end in zip(SWAP_COUNTS, ends, strict=True)}


# How the photo is inverted. Where the photo's own path is kept outside the subject anyway, direct
# inversion costs nothing and holds it better than tuned embeddings.
SWAP_INVERSIONS = {"paper": "null-text", "official": "null-text", "best": "direct"}

# p2p: the paper's text names no numbers, so "paper" holds those of the authors' first notebook, for
# generated pictures, and "official" those of their notebook for real photos (null-text inversion).
# pnp: Tumanyan et al. 2023, section 4, and the authors' second code. hiper: Han et al. 2023, and
# the factor on the tail in the authors' code.
NEGATIVE = "ugly, blurry, black, low res, unrealistic"
_P2P: dict[str, Value] = {"cross_map_steps": 40, "self_map_steps": 20, "self_map_side": 16}
_PNP: dict[str, Value] = {"self_map_steps": 25, "feature_steps": 40, "inversion_steps": 999}
_HIPER: dict[str, Value] = {"cross_map_steps": 0, "self_map_steps": 0, "tail_scale": 1.0}
EDIT_PRESETS: dict[str, dict[str, dict[str, Value]]] = {
    "p2p": {
        "paper": {**_P2P, "blend_start": 0.0},
        "official": {**_P2P, "self_map_steps": 25, "self_map_side": 32},
    },
    "pnp": {"paper": _PNP, "official": {**_PNP, "negative": NEGATIVE}},
    "hiper": {"paper": _HIPER, "official": {**_HIPER, "tail_scale": 0.8}},
}
PROPORTIONAL = ("cross_map_steps", "self_map_steps", "feature_steps")  # to the number of steps
