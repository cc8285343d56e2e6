"""Flow transformers on tiny random folders: equal to diffusers' classes, loaded, saved, sampled."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_flow
from tiny_flow import KINDS, stock_pipeline, tiny_flow_folder
from understudy.attention.plan import AttentionPlan
from understudy.attention.site import AttentionSite
from understudy.diffusion.text import Text
from understudy.errors import InputError, ModelError, PromptError
from understudy.generate import generate
from understudy.models.registry import load
from understudy.models.transformer.model import FlowTransformer
from understudy.models.write_folder import copy_folder, write_folder
from understudy.settings import GenerateSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
each_kind = pytest.mark.parametrize("kind", KINDS)
PROMPTS = ["a photo of a cat on the beach", "a dog"]  # of unequal length


@dataclass
class Plain:
    """A control that only listens."""

    sites: list[AttentionSite] = field(default_factory=list[AttentionSite])

    def plan(self, site: AttentionSite) -> AttentionPlan:
        self.sites.append(site)
        return AttentionPlan()


# Sampled without guidance; the rest with a scale of 2.
GUIDANCE = {"schnell": 1.0}


def lengths(kind: str) -> dict[str, Any]:
    """T5's length, as the tiny tokenizer says it."""
    return {"max_sequence_length": 24} if kind == "sd35" else {}


def noise(model: FlowTransformer, rows: int = 2, size: tuple[int, int] = (8, 14)) -> torch.Tensor:
    """Latents of a picture that is not square."""
    draws = torch.Generator().manual_seed(1)
    return torch.randn(rows, model.latent_channels, *size, generator=draws)


@torch.no_grad()
def stock_velocity(kind: str, x: torch.Tensor, sigma: float, text: Text) -> torch.Tensor:
    """diffusers' own network with its own processors, called as its pipeline calls it."""
    import diffusers

    from understudy.models.folder import family_in

    family = family_in(tiny_flow_folder(kind))
    assert family is not None
    network = getattr(diffusers, family.network).from_pretrained(
        tiny_flow_folder(kind) / "transformer", local_files_only=True
    )
    rows, _, height, width = x.shape
    time = torch.full((rows,), sigma)
    told: dict[str, Any] = {"encoder_hidden_states": text.tokens, "return_dict": False}
    if kind.startswith("sd3"):
        return network(x, timestep=time * 1000, pooled_projections=text.pooled, **told)[0]
    if kind == "zimage":
        lists = [row[kept] for row, kept in zip(text.tokens, text.mask, strict=True)]
        found = network(list(x.unsqueeze(2).unbind(0)), 1 - time, lists, return_dict=False)[0]
        return -torch.stack(found)[:, :, 0]
    if kind in ("klein", "flux2"):
        pipe = diffusers.Flux2Pipeline
        scale = torch.full((rows,), 3.5) if kind == "flux2" else None
        found = network(
            pipe._pack_latents(x),
            timestep=time,
            guidance=scale,
            img_ids=pipe._prepare_latent_ids(x),
            txt_ids=pipe._prepare_text_ids(text.tokens),
            **told,
        )[0]
        return pipe._unpack_latents_with_ids(found, pipe._prepare_latent_ids(x))
    if kind == "qwen":
        pipe = diffusers.QwenImagePipeline
        tokens = pipe._pack_latents(x, rows, x.shape[1], height, width)
        shapes = [[(1, height // 2, width // 2)]] * rows
        mask = text.mask.long()
        found = network(
            tokens, timestep=time, encoder_hidden_states_mask=mask, img_shapes=shapes, **told
        )[0]
        return pipe._unpack_latents(found, height, width, 1)[:, :, 0]
    pipe = diffusers.FluxPipeline
    tokens = pipe._pack_latents(x, rows, x.shape[1], height, width)
    places = pipe._prepare_latent_image_ids(rows, height // 2, width // 2, "cpu", torch.float32)
    told |= {"img_ids": places, "txt_ids": torch.zeros(text.tokens.shape[1], 3), "timestep": time}
    if kind == "chroma":
        told["attention_mask"] = torch.cat([text.mask, text.mask.new_ones(tokens.shape[:2])], 1)
    else:
        told["pooled_projections"] = text.pooled
        told["guidance"] = torch.full((rows,), 3.5) if kind == "flux" else None
    return pipe._unpack_latents(network(tokens, **told)[0], height, width, 1)


def embedded(model: FlowTransformer) -> Text:
    """The prompts, with a guidance scale where the network reads one."""
    text = model.embed(PROMPTS)
    return text.guided(3.5) if model.guidance.kind == "embedded" else text


@each_kind
@torch.no_grad()
def test_without_a_control_it_equals_the_stock_class_bit_for_bit(kind: str) -> None:
    model = tiny_flow.tiny_flow(kind)
    latents, text = noise(model), embedded(model)
    ours = model.predict(latents, 0.7, text)
    assert torch.equal(ours, stock_velocity(kind, latents, 0.7, text))
    assert ours.std() > 0.01
    assert text.tokens.shape[1] != latents.shape[-1] * latents.shape[-2] // model.network.patch**2


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)  # what Qwen3's own template gives for one message


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("schnell", "flux2")])
@torch.no_grad()
def test_prompts_are_embedded_as_the_pipeline_does(kind: str) -> None:
    from understudy.models.transformer import language

    model, pipe = tiny_flow.tiny_flow(kind), stock_pipeline(kind)
    ours, mask = model.embed(PROMPTS), None
    if kind.startswith("sd3"):
        tokens, _, pooled, _ = pipe.encode_prompt(
            PROMPTS, None, None, do_classifier_free_guidance=False, **lengths(kind)
        )
    elif kind == "flux":
        tokens, pooled, _ = pipe.encode_prompt(PROMPTS, None, max_sequence_length=24)
    elif kind == "chroma":
        tokens, _, mask, *_ = pipe.encode_prompt(
            PROMPTS, do_classifier_free_guidance=False, max_sequence_length=24
        )
    elif kind == "qwen":
        before = pipe.tokenizer(language.QWEN_IMAGE.before).input_ids
        pipe.prompt_template_encode_start_idx = len(before)  # 34 of the real tokenizer
        tokens, mask = pipe.encode_prompt(PROMPTS)
    else:
        pipe.tokenizer.chat_template = CHAT
        tokens, more = pipe.encode_prompt(list(PROMPTS), do_classifier_free_guidance=False) if (
            kind == "zimage"
        ) else pipe.encode_prompt(PROMPTS)  # fmt: skip
        if kind == "zimage":
            assert [len(row) for row in tokens] == ours.mask.sum(1).tolist()
            for row, own in zip(tokens, ours.tokens, strict=True):
                assert (own[: len(row)] - row).abs().max() < 1e-5
            return
    if mask is not None:
        assert torch.equal(ours.mask, mask.bool())
        tokens = tokens * ours.mask[..., None]
        ours = Text(ours.tokens * ours.mask[..., None], ours.pooled)
    assert (ours.tokens - tokens).abs().max() < 1e-5
    if ours.pooled is not None:
        assert (ours.pooled - pooled).abs().max() < 1e-6


@torch.no_grad()
def test_mistral_reads_the_prompt_in_its_template_padded_on_the_left() -> None:
    from transformers import Mistral3ForConditionalGeneration

    model = tiny_flow.tiny_flow("flux2")
    words = model.text.tokenizer
    whole = Mistral3ForConditionalGeneration.from_pretrained(
        tiny_flow_folder("flux2") / "text_encoder", local_files_only=True
    )
    chat = model.text.chat
    given = words(
        [f"{chat.before}{prompt}{chat.after}" for prompt in PROMPTS],
        padding="max_length",
        max_length=512,
        add_special_tokens=False,
        return_tensors="pt",
    )
    states = whole(
        input_ids=given.input_ids, attention_mask=given.attention_mask, output_hidden_states=True
    ).hidden_states
    theirs = torch.cat([states[layer] for layer in (10, 20, 30)], dim=-1)
    assert (model.embed(PROMPTS).tokens - theirs).abs().max() < 1e-4
    place = model.tokenize(PROMPTS[1]).first
    assert words.convert_ids_to_tokens(given.input_ids[1].tolist())[place] == "a"


@each_kind
@torch.no_grad()
def test_a_control_that_asks_for_nothing_changes_nothing(kind: str) -> None:
    model, control = tiny_flow.tiny_flow(kind), Plain()
    latents, text = noise(model), model.embed(PROMPTS)
    ours = model.predict(latents, 0.7, text, control)
    assert (ours - model.predict(latents, 0.7, text)).abs().max() < 1e-5
    assert [site.name for site in control.sites] == [site.name for site in model.sites]
    grid = (8 // model.network.patch, 14 // model.network.patch)
    for site in control.sites:
        assert site.grid == grid
        assert site.image.stop - site.image.start == grid[0] * grid[1]
        if site.kind == "joint":
            assert site.text.stop - site.text.start == text.tokens.shape[1] != site.cells
            assert (site.image.start == 0) == (model.network.order == "image first")


@each_kind
@torch.no_grad()
def test_rows_may_have_times_of_their_own(kind: str) -> None:
    model = tiny_flow.tiny_flow(kind)
    latents, text = noise(model), model.embed(PROMPTS)
    both = model.predict(latents, torch.tensor([0.9, 0.2]), text)
    alone = model.predict(latents[1:], 0.2, text[1])
    assert (both[1:] - alone).abs().max() < 1e-5
    assert (both[1:] - model.predict(latents[1:], 0.9, text[1])).abs().max() > 1e-4


@each_kind
def test_saved_loaded_and_sampled_it_gives_the_same_picture(kind: str, tmp_path: Path) -> None:
    model = tiny_flow.tiny_flow(kind)
    settings = GenerateSettings(steps=3, guidance=GUIDANCE.get(kind, 2.0))
    with torch.no_grad():
        last = list(model.network.module.parameters())[-1]
        last.add_(torch.randn_like(last))  # a changed model, not the folder's
    first = generate(model, PROMPTS, [0, 1], settings, size=(16, 24))
    write_folder(model, tmp_path / "saved")
    again = load(str(tmp_path / "saved"), device="cpu")
    assert torch.equal(first, generate(again, PROMPTS, [0, 1], settings, size=(16, 24)))
    copy_folder(tmp_path / "saved", tmp_path / "copied")
    assert load(str(tmp_path / "copied"), device="cpu").fingerprint == again.fingerprint
    assert again.fingerprint != model.base_fingerprint
    assert not torch.equal(first, generate(tiny_flow.tiny_flow(kind), PROMPTS, [0, 1], settings,
                                           size=(16, 24)))  # fmt: skip


# What each pipeline calls a guidance scale of 3. Chroma's adds its mask to the logits instead of
# masking, so its pictures are others.
SCALES: dict[str, dict[str, Any]] = {
    "sd35": {"guidance_scale": 3.0, "max_sequence_length": 24},
    "flux": {"guidance_scale": 3.0, "max_sequence_length": 24},
    "schnell": {"max_sequence_length": 24},
    "qwen": {"true_cfg_scale": 3.0, "negative_prompt": ""},
    "zimage": {"guidance_scale": 2.0},
    "klein": {"guidance_scale": 3.0},
}


@pytest.mark.parametrize("kind", SCALES)
@torch.no_grad()
def test_the_stock_pipeline_draws_the_same_picture(kind: str) -> None:
    """Schedule, text, guidance, network and autoencoder in one."""
    from understudy.models.transformer import language

    model, pipe = tiny_flow.tiny_flow(kind), stock_pipeline(kind)
    settings = GenerateSettings(steps=4, guidance=GUIDANCE.get(kind, 3.0))
    ours = generate(model, PROMPTS[:1], [5], settings, size=(16, 24))
    if kind == "qwen":
        before = pipe.tokenizer(language.QWEN_IMAGE.before).input_ids
        pipe.prompt_template_encode_start_idx = len(before)
    if kind in ("zimage", "klein"):
        pipe.tokenizer.chat_template = CHAT
    theirs = pipe(
        prompt=PROMPTS[:1],
        height=16,
        width=24,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
        **SCALES[kind],
    ).images
    assert (ours / 2 + 0.5 - theirs).abs().max() < 1e-4
    assert ours.std() > 0.01


@pytest.mark.parametrize("kind", ["sd35", "flux", "zimage"])
@torch.no_grad()
def test_latents_are_scaled_and_shifted_as_the_pipeline_does(kind: str) -> None:
    model, pipe = tiny_flow.tiny_flow(kind), stock_pipeline(kind)
    pictures = torch.rand(1, 3, 16, 24) * 2 - 1
    config = pipe.vae.config
    theirs = pipe.vae.encode(pictures).latent_dist.mean
    theirs = (theirs - config.shift_factor) * config.scaling_factor
    assert (model.encode(pictures) - theirs).abs().max() < 1e-6
    again = pipe.vae.decode(theirs / config.scaling_factor + config.shift_factor).sample
    assert (model.decode(theirs) - again.clamp(-1, 1)).abs().max() < 1e-6


def test_words_have_places_in_every_encoder() -> None:
    from understudy.diffusion.words import word_places

    model, prompt = tiny_flow.tiny_flow("sd35"), "a photo of a cat"
    clip, t5 = model.readings(prompt)
    assert word_places(prompt, "cat", clip) == (5,)
    assert word_places(prompt, "cat", t5) == (77 + 4,)
    assert model.tokenize(prompt) == clip
    assert model.max_tokens == model.embed([prompt]).tokens.shape[1] == 77 + 24


def test_a_prompt_that_no_encoder_reads_whole_is_refused() -> None:
    model = tiny_flow.tiny_flow("sd35")
    with pytest.raises(PromptError, match="at most 75"):
        model.embed(["cat " * 76])
    model.embed(["cat " * 75])  # more than T5's 23, which reads the beginning


def test_a_size_that_is_no_multiple_of_the_patches_is_refused() -> None:
    model = tiny_flow.tiny_flow("sd35")
    with pytest.raises(InputError, match="multiples of 4"):
        model.predict(torch.zeros(1, 4, 8, 11), 0.5, model.embed(["a"]))


@pytest.mark.parametrize("kind", ["sd35", "flux"])
@pytest.mark.parametrize("part", ["transformer", "vae", "tokenizer"])
def test_a_folder_without_a_part_is_refused_by_name(kind: str, part: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flow_folder(kind), tmp_path / "model")
    shutil.rmtree(folder / part)
    with pytest.raises(ModelError, match=f"lacks {part}/"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("transformer", {"num_layers": 9}, "lack"),
        ("transformer", {"caption_projection_dim": 20}, "shape|fit"),
        ("transformer", {"surprise": 1}, "'surprise'"),
        ("text_encoder", {"architectures": [[]]}, "architectures"),
        ("text_encoder", {"architectures": 0.5}, "architectures"),
        ("transformer", {"num_layers": 10**9}, "num_layers"),
        ("transformer", {"quantization_config": {"a": 1}}, "quantization_config"),
        ("text_encoder_3", {"architectures": ["UMT5EncoderModel"]}, "Expected T5EncoderModel"),
        ("text_encoder", {"vocab_size": 20}, "fit|shape"),
        ("vae", {"latent_channels": 8}, "fit|shape"),
    ],
)
def test_a_damaged_configuration_is_refused_by_name(
    part: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_flow_folder("sd35"), tmp_path / "model")
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=said):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(
    "change", [{"use_karras_sigmas": True}, {"shift": 0}, {"_class_name": "DDIMScheduler"}]
)
def test_a_schedule_that_is_not_its_own_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flow_folder("sd35"), tmp_path / "model")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match="scheduler_config.json"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("kind", ["qwen", "klein"])
@torch.no_grad()
def test_autoencoders_give_back_what_they_decode_from(kind: str) -> None:
    """encode is the inverse scaling of decode: the latents of one feed the other."""
    model, pipe = tiny_flow.tiny_flow(kind), stock_pipeline(kind)
    pictures = torch.rand(1, 3, 16, 24) * 2 - 1
    given = pictures.unsqueeze(2) if kind == "qwen" else pictures
    plain = pipe.vae.encode(given).latent_dist.mean
    again = pipe.vae.decode(plain).sample
    again = again[:, :, 0] if kind == "qwen" else again
    assert (model.decode(model.encode(pictures)) - again.clamp(-1, 1)).abs().max() < 1e-5
    if kind == "klein":
        theirs = pipe._encode_vae_image(pictures, torch.Generator())
        assert (model.encode(pictures) - theirs).abs().max() < 1e-5


@torch.no_grad()
def test_a_model_without_an_unconditional_branch_says_so() -> None:
    schnell, flux = tiny_flow.tiny_flow("schnell"), tiny_flow.tiny_flow("flux")
    with pytest.raises(InputError, match="--guidance 1"):
        generate(schnell, ["a"], [0], GenerateSettings(steps=1, guidance=3.0), size=(16, 16))
    with pytest.raises(InputError, match="--negative"):
        settings = GenerateSettings(steps=1, guidance=3.0, negative="red")
        generate(flux, ["a"], [0], settings, size=(16, 16))


def test_texts_of_unequal_length_are_joined_under_their_masks() -> None:
    model = tiny_flow.tiny_flow("qwen")
    long, short = model.embed(PROMPTS[:1]), model.embed(PROMPTS[1:])
    both = Text.cat([long, short])
    assert both.equals(model.embed(PROMPTS))
    assert both.mask is not None
    assert both.mask.sum(1).tolist() == [long.tokens.shape[1], short.tokens.shape[1]]


def test_dynamic_shifts_are_those_of_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    from understudy.models.family import SD3
    from understudy.models.transformer.flow_config import load_flow_schedule

    config: dict[str, Any] = {"use_dynamic_shifting": True, "max_shift": 1.2, "base_shift": 0.4}
    theirs = FlowMatchEulerDiscreteScheduler(**config)
    folder = tiny_flow.tiny._session() / "dynamic"
    theirs.save_pretrained(folder / "scheduler")
    ours = load_flow_schedule(folder, SD3, 4).times(9, 64 * 96)
    theirs.set_timesteps(9, mu=calculate_shift(64 * 96 // 4, 256, 4096, 0.4, 1.2))
    assert ours == pytest.approx(theirs.sigmas.tolist(), abs=1e-6)


def test_the_command_line_generates(here: Path) -> None:
    from typer.testing import CliRunner

    from understudy.cli.app import app

    folder = str(tiny_flow_folder("sd35"))
    said = CliRunner().invoke(
        app, ["generate", "a photo of a cat", "--model", folder, "--steps", "2", "--out", "a.png",
              "--device", "cpu"]
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert (here / "a.png").is_file()
    checked = CliRunner().invoke(app, ["models", "check", folder])
    assert checked.exit_code == 0 and "Stable Diffusion 3" in checked.output


@pytest.mark.parametrize("sections", [[[]], [1, 1, 1], "1, 1, 2", [0, 2, 2], [1, 1]])
def test_rotary_sections_that_do_not_fit_a_head_are_refused(
    sections: object, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_flow_folder("qwen"), tmp_path / "model")
    file = folder / "text_encoder" / "config.json"
    told = json.loads(file.read_text())
    told["text_config"]["rope_parameters"]["mrope_section"] = sections
    file.write_text(json.dumps(told))
    with pytest.raises(ModelError, match="mrope_section|rope_parameters"):
        load(str(folder), device="cpu")


def test_a_length_that_is_no_number_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flow_folder("chroma"), tmp_path / "model")
    file = folder / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": "x"}))
    with pytest.raises(ModelError, match="model_max_length = 'x'"):
        load(str(folder), device="cpu")
