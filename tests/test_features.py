"""CLIP and DINO against transformers' own preparation and towers; the recogniser beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lookers import SIDE, clip_folder, dino_folder, sam_folder
from recognisers import untaught
from understudy.errors import InputError, ModelError
from understudy.pictures.tensors import to_tensor
from understudy.toybox import plain_caption, render, sample_scene
from understudy.vision.encoders import load_clip, load_dino
from understudy.vision.features import (
    CLIP_MEAN,
    CLIP_STD,
    ClipFeatures,
    DinoFeatures,
    Preparation,
    ToyFeatures,
    said,
)
from understudy.vision.recogniser import load
from understudy.vision.sam import load_sam

TEXTS = ["a photo of a cat", "a red dog on the beach"]


def pixels(height: int = 45, width: int = 70) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)) for _ in "ab"]
    return [np.asarray(one.resize((width, height))) for one in coarse]


def batch() -> torch.Tensor:
    return torch.cat([to_tensor(one) for one in pixels()])


def test_clip_gives_what_transformers_gives() -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    prepared = processor(images=[Image.fromarray(p) for p in pixels()], return_tensors="pt")
    model = CLIPModel.from_pretrained(clip_folder()).eval()
    tokens = CLIPTokenizer.from_pretrained(clip_folder())
    with torch.no_grad():
        out = model(**prepared, **tokens(TEXTS, padding=True, return_tensors="pt"))
    ours = ClipFeatures(load_clip(str(clip_folder())))
    assert torch.allclose(ours.preparation(batch()), prepared.pixel_values, atol=2e-6)
    assert torch.allclose(ours.of(batch()), out.image_embeds, atol=1e-5)
    assert torch.allclose(ours.texts(TEXTS), out.text_embeds, atol=1e-5)
    scale = model.logit_scale.exp().item()
    wanted = (out.logits_per_image / scale).diagonal()
    assert torch.allclose(ours.agreement(batch(), TEXTS), wanted, atol=1e-5)
    assert ours.choices["resize"] == str(SIDE) and ours.choices["by"] == "pillow"


def test_dino_gives_what_transformers_gives() -> None:
    from transformers import CLIPImageProcessorPil, ViTModel

    # The official steps: shorter side to 256/224 of the crop, bicubic; ImageNet's numbers.
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 37}, crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    prepared = processor(images=[Image.fromarray(p) for p in pixels()], return_tensors="pt")
    model = ViTModel.from_pretrained(dino_folder(), add_pooling_layer=False).eval()
    with torch.no_grad():
        token = model(**prepared).last_hidden_state[:, 0]
    ours = DinoFeatures(load_dino(str(dino_folder()))).of(batch())
    assert torch.allclose(ours, torch.nn.functional.normalize(token, dim=1), atol=1e-5)


def test_both_ways_to_scale_agree_but_for_rounding() -> None:
    how = (SIDE, SIDE, CLIP_MEAN, CLIP_STD)
    difference = Preparation(*how)(batch()) - Preparation(*how, by="torch")(batch())
    assert difference.abs().max() < 2 / 255 / min(CLIP_STD)
    assert difference.abs().mean() < 0.5 / 255 / min(CLIP_STD)


def test_a_flat_picture_is_prepared_to_its_colour() -> None:
    prepared = Preparation(8, 8, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))(torch.ones(1, 3, 20, 30))
    assert prepared.shape == (1, 3, 8, 8)
    assert prepared.mean(dim=(2, 3)).tolist() == [[2, 1, 0.5]]
    with pytest.raises(InputError, match="does not fit"):
        Preparation(8, 9, CLIP_MEAN, CLIP_STD)(batch())


def test_batches_change_nothing() -> None:
    ours = DinoFeatures(load_dino(str(dino_folder())))
    many = batch().repeat(20, 1, 1, 1)
    assert torch.allclose(ours.of(many)[38:], ours.of(batch()), atol=1e-6)


def test_a_folder_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'vit' model"):
        load_clip(str(dino_folder()))
    copy = Path(shutil.copytree(dino_folder(), tmp_path / "dino"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        load_dino(str(copy))
    (copy / "pytorch_model.bin").rename(copy / "model.safetensors")
    (copy / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_dino(str(copy))


@pytest.mark.parametrize(("change", "match"), [
    ({"hidden_size": 10**9}, "hidden_size = 1000000000, which is out of"),
    ({"hidden_size": "8"}, "hidden_size = '8'"), ({"num_hidden_layers": -1}, "num_hidden_layers"),
    ({"image_size": [1, 2]}, "image_size = a list"), ({"patch_size": 0}, "patch_size = 0"),
    ({"hidden_act": "none"}, "hidden_act = 'none'"),
    ({"patch_size": 1, "image_size": 999}, "patches"),
    ({"num_hidden_layers": 99}, "99 blocks"), ({"intermediate_size": 30}, "tensors of shape"),
    ({"num_attention_heads": 7}, "cannot be loaded: "),
    ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
])  # fmt: skip
def test_a_stranger_s_configuration_is_bounded(
    change: dict[str, object], match: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dino_folder(), tmp_path / "dino"))
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**said, **change}))
    with pytest.raises(ModelError, match=match) as caught:
        load_dino(str(copy))
    assert len(str(caught.value)) < 600 and str(caught.value)[-1] in ".!?"


@pytest.mark.parametrize(("part", "change", "match"), [
    ("vision_config", [], "vision_config = a list. Expected an object"),
    ("vision_config", {"backbone_config": {"model_type": "resnet"}}, "model_type = 'resnet'"),
    ("vision_config", {"fpn_hidden_size": 24}, "cannot be loaded: "),
    ("prompt_encoder_config", {"image_size": 8192}, "image_size = 8192"),
    ("mask_decoder_config", {"num_hidden_layers": 128}, "tensors of shape"),
    ("auto_map", {"AutoModel": "evil.Model"}, "auto_map"),
])  # fmt: skip
def test_a_stranger_s_sam_is_bounded(part: str, change: object, match: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sam_folder(), tmp_path / "sam"))
    said = json.loads((copy / "config.json").read_text())
    changed = {**said.get(part, {}), **change} if isinstance(change, dict) else change
    (copy / "config.json").write_text(json.dumps({**said, part: changed}))
    with pytest.raises(ModelError, match=match):
        load_sam(copy)


def test_the_recogniser_reads_what_renders_show() -> None:
    eyes = ToyFeatures(load())
    scenes = [sample_scene(40_000_000 + n, subjects=1, occluded=False) for n in range(8)]
    prompts = [plain_caption(scene) for scene in scenes]
    pictures = torch.cat([to_tensor(render(scene, 64).picture) for scene in scenes])
    right = eyes.agreement(pictures, prompts)
    wrong = eyes.agreement(pictures, prompts[1:] + prompts[:1])
    assert right.mean() > 0.6 and right.mean() > wrong.mean() + 0.2
    assert eyes.agreement(pictures[:1], ["nothing it knows"]).isnan().all()


def test_what_a_prompt_says() -> None:
    found = said("a photo of a zwx cat sitting on a red rug, with a blue hat", load())
    assert ("class", "cat") in found and ("stance", "sitting") in found
    assert ("background", "rug") in found and ("accessory", "hat") in found
    assert not [pair for pair in found if pair[0] == "primary"]
    assert ("primary", "red") in said("a red cat", load())
    assert said("a scarfless cathedral", untaught()) == []
