"""Tiny, random folders of flow transformers, in the layouts of real ones.

    model = tiny_flow("sd3")                a fresh model each time; change it as you like
    folder = tiny_flow_folder("sd3")        the folder, made once a session; do not write to it
    pipe = stock_pipeline("sd3")            diffusers' own pipeline of the same folder

Kinds: see KINDS. Pictures are 32 x 32 by default. Words of tiny.WORDS are one token each.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

import tiny
from understudy.models.transformer.model import FlowTransformer

# sd3: no QK-norm, no T5. sd35: QK-norm, a second attention in block 0, T5 of 24 places. flux reads
# a guidance scale, schnell does not. klein: FLUX.2 with Qwen3 instead of Mistral.
KINDS = ("sd35", "sd3", "flux", "schnell", "chroma", "qwen", "zimage", "klein", "flux2")
SIDE = 16  # latent cells along a side; the autoencoders halve once


def tiny_flow(kind: str = "sd35", **how: Any) -> FlowTransformer:
    """A freshly loaded tiny model on the CPU; how = device, dtype."""
    return FlowTransformer.from_folder(tiny_flow_folder(kind), **{"device": "cpu", **how})


@cache
def tiny_flow_folder(kind: str = "sd35") -> Path:
    """The folder of a tiny model, made when first asked for and kept until the session ends."""
    folder = tiny._session() / f"flow-{kind}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KINDS.index(kind))
        write_tiny_flow(folder, kind)
    return folder


def write_tiny_flow(folder: Path, kind: str = "sd35") -> None:
    """Write a tiny model of this kind, from torch's current random state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of diffusers' own classes
        pipeline = MAKERS[kind]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            shaken(part)
    pipeline.save_pretrained(folder)


def stock_pipeline(kind: str = "sd35") -> Any:
    """diffusers' pipeline of a tiny folder, float32, without progress bars.

    It does not load a folder without T5 unless it is told that T5 is absent.
    """
    from diffusers import DiffusionPipeline

    absent = {"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pipeline = DiffusionPipeline.from_pretrained(
            tiny_flow_folder(kind), dtype=torch.float32, local_files_only=True, **absent
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def shaken(module: torch.nn.Module) -> None:
    """Random values where a fresh network has zeros or ones, so that every tensor matters."""
    with torch.no_grad():
        for value in module.parameters():
            if value.unique().numel() == 1:
                value.add_(torch.randn_like(value) * 0.2)


def _sd3(modern: bool) -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    new: dict[str, Any] = {"qk_norm": "rms_norm", "dual_attention_layers": (0,)}
    network = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        pos_embed_max_size=24,
        **(new if modern else {}),
    )
    t5 = {"text_encoder_3": t5_network(24), "tokenizer_3": t5_tokenizer(24)}
    return StableDiffusion3Pipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_autoencoder(4),
        text_encoder=clip_network(8),
        tokenizer=tiny._tokenizer("sd15"),
        text_encoder_2=clip_network(8),
        tokenizer_2=tiny._tokenizer("second"),
        **(t5 if modern else {"text_encoder_3": None, "tokenizer_3": None}),
    )


def kl_autoencoder(channels: int, **more: Any) -> Any:
    """An AutoencoderKL that halves once, with a shift as SD3's and FLUX's have it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=channels,
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **more,
    )


def clip_network(width: int, *, projected: bool = True) -> Any:
    """CLIP, with a projection of the width of its states or without."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    words = tiny._tokenizer("sd15")
    config = CLIPTextConfig(
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=len(words),
        max_position_embeddings=77,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_tokenizer(length: int) -> Any:
    """Pieces for tiny.WORDS and for every letter; length: what it says of itself."""
    from transformers import T5TokenizerFast

    letters = sorted(
        {letter for word in tiny.WORDS for letter in word} | set("abcdefghijklmnopqrstuvwxyz,.'-{}")
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0 - 0.01 * i) for i, word in enumerate(tiny.WORDS)]
    pieces += [(letter, -5.0) for letter in letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=length)


def t5_network(width: int) -> Any:
    """A T5 encoder of two layers for `t5_tokenizer`."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(t5_tokenizer(8)),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def _flux(guided: bool) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    network = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=8,
        guidance_embeds=guided,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guided),
        vae=kl_autoencoder(4, sample_size=32),
        text_encoder=clip_network(8, projected=False),
        tokenizer=tiny._tokenizer("sd15"),
        text_encoder_2=t5_network(24),
        tokenizer_2=t5_tokenizer(24),
    )


def _chroma() -> Any:
    from diffusers import (
        ChromaPipeline,
        ChromaTransformer2DModel,
        FlowMatchEulerDiscreteScheduler,
    )

    network = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return ChromaPipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kl_autoencoder(4, sample_size=32),
        text_encoder=t5_network(24),
        tokenizer=t5_tokenizer(24),
    )


def _qwen() -> Any:
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    network = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    shift: dict[str, Any] = {"use_dynamic_shifting": True, "shift_terminal": 0.02}
    return QwenImagePipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(**shift, max_shift=0.9),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.1, 0.9, 2.0, 1.5],
        ),
        text_encoder=qwen_vl(),
        tokenizer=qwen_tokenizer(),
    )


def _zimage() -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        ZImagePipeline,
        ZImageTransformer2DModel,
    )

    network = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 64, 64],
    )
    return ZImagePipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_autoencoder(4, sample_size=32),
        text_encoder=qwen3(3),
        tokenizer=qwen_tokenizer(),
    )


def _flux2(klein: bool) -> Any:
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Pipeline,
        Flux2Transformer2DModel,
    )

    network = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=not klein,
    )
    vae = AutoencoderKLFlux2(
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=32,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    return (Flux2KleinPipeline if klein else Flux2Pipeline)(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=qwen3(28) if klein else mistral(31),
        tokenizer=qwen_tokenizer() if klein else mistral_tokenizer(),
    )


SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": None,
}


def qwen3(layers: int) -> Any:
    """A Qwen3 with an output layer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    words = len(qwen_tokenizer())
    config = Qwen3Config(**SIZES, vocab_size=words, num_hidden_layers=layers, head_dim=8)
    return Qwen3ForCausalLM(config).eval()


def qwen_vl() -> Any:
    """A Qwen2.5-VL, eyes included."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope: dict[str, Any] = {"mrope_section": [1, 1, 2], "rope_type": "default"}
    text = {**SIZES, "vocab_size": len(qwen_tokenizer()), "num_hidden_layers": 2}
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 16, "fullatt_block_indexes": [0]}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": {**rope, "rope_theta": 1e6}}, vision_config=eyes
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def mistral(layers: int) -> Any:
    """A Mistral 3, eyes included."""
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        MistralConfig,
        PixtralVisionConfig,
    )

    text = MistralConfig(
        **SIZES, vocab_size=len(mistral_tokenizer()), num_hidden_layers=layers, sliding_window=None
    )
    eyes = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config = Mistral3Config(text_config=text, vision_config=eyes, image_token_index=1)
    return Mistral3ForConditionalGeneration(config).eval()


def qwen_tokenizer() -> Any:
    """Byte-level pieces, one for each of tiny.WORDS with its blank, and Qwen's special tokens."""
    from transformers import Qwen2Tokenizer

    vocabulary, merges = _byte_pairs()
    found = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return found


def mistral_tokenizer() -> Any:
    """The same pieces with Mistral's special tokens, padded on the left."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary, merges = _byte_pairs()
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ("<s>", "</s>", "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]")
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
    )


def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The byte alphabet, and merges for tiny.WORDS behind a blank."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces, merges = sorted(ByteLevel.alphabet()), list[tuple[str, str]]()
    for word in tiny.WORDS:
        parts = ["\u0120", *word]
        while len(parts) > 1:
            merge = (parts[0], parts[1])
            if merge not in merges:
                merges.append(merge)
                pieces.append("".join(merge))
            parts = ["".join(merge), *parts[2:]]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}, merges


MAKERS = {
    "sd35": lambda: _sd3(True),
    "sd3": lambda: _sd3(False),
    "flux": lambda: _flux(True),
    "schnell": lambda: _flux(False),
    "chroma": _chroma,
    "qwen": _qwen,
    "zimage": _zimage,
    "klein": lambda: _flux2(True),
    "flux2": lambda: _flux2(False),
}
