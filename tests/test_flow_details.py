"""What differs from family to family of flow models: defaults, learnt tails, words in maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_flow import tiny_flow, tiny_flow_folder
from understudy.attention.plan import AttentionPlan, Recording
from understudy.concept import Concept, embedded
from understudy.errors import InputError, PromptError
from understudy.invert import invert
from understudy.learn import learn
from understudy.settings import (
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    SwapSettings,
)
from understudy.swap import explain

QUICK: dict[str, Any] = {"steps": 1, "batch_size": 1, "prior_samples": 0}
PHOTO = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize(
    ("model", "steps", "guidance"),
    [
        ("black-forest-labs/FLUX.1-dev", 28, 3.5),
        ("black-forest-labs/FLUX.1-schnell", 4, 1.0),
        ("black-forest-labs/FLUX.1-Kontext-dev", 28, 2.5),
        ("black-forest-labs/FLUX.2-dev", 50, 4.0),
        ("black-forest-labs/FLUX.2-klein-4B", 4, 1.0),
        ("black-forest-labs/FLUX.2-klein-base-4B", 50, 4.0),
        ("stabilityai/stable-diffusion-3-medium-diffusers", 28, 7.0),
        ("stabilityai/stable-diffusion-3.5-medium", 40, 4.5),
        ("stabilityai/stable-diffusion-3.5-large-turbo", 4, 1.0),
        ("Tongyi-MAI/Z-Image", 50, 6.0),  # its pipeline's 5.0 is a factor on c - u beside c
        ("Tongyi-MAI/Z-Image-Turbo", 9, 1.0),
        ("lodestones/Chroma1-HD", 35, 5.0),
    ],
)
def test_steps_and_guidance_are_those_of_the_model(model: str, steps: int, guidance: float) -> None:
    for kind in (GenerateSettings, InvertSettings, SwapSettings, EditSettings):
        filled = kind.filled({}, model)
        assert (filled.steps, filled.guidance) == (steps, guidance), kind
    flow = EditSettings.filled({"method": "flowedit"}, model)
    assert (flow.guidance == flow.source_guidance == 1.0) == (guidance == 1.0)


@pytest.mark.parametrize("kind", ["schnell", "klein"])
def test_a_distilled_folder_is_known_by_what_it_holds(kind: str, tmp_path: Path) -> None:
    folder = tiny_flow_folder(kind)
    if kind == "klein":  # the flag is in its index
        (tmp_path / "model_index.json").write_text(
            '{"_class_name": "Flux2KleinPipeline", "is_distilled": true}'
        )
        folder = tmp_path
    assert GenerateSettings.filled({}, str(folder)).guidance == 1.0


@pytest.mark.parametrize("kind", ["sd35", "flux", "qwen", "zimage", "chroma"])
def test_a_tail_is_learnt_and_stands_where_the_network_reads_it(kind: str) -> None:
    """Behind a masked prompt, in the place of padding elsewhere; what it says changes the output,
    and nothing else of the text differs."""
    model, prompt = tiny_flow(kind), "a photo of a {rex}"
    settings = LearnSettings.filled({"method": "hiper", "tail": 3, **QUICK})
    rex = learn(model, PHOTO, name="rex", class_noun="dog", settings=settings)
    tail = rex.tensors["tail"]
    plain, text = model.embed(["a photo of a dog"]), embedded(model, [prompt], rex)
    if plain.mask is None:
        start = plain.tokens.shape[1] - 3
    else:
        start = int(plain.mask.sum())
        assert text.mask is not None and text.mask[0, : start + 3].all()
        assert int(text.mask.sum()) == start + 3
    assert torch.allclose(text.tokens[0, start : start + 3], rex.tail_scale * tail)
    assert torch.equal(text.tokens[0, :start], plain.tokens[0, :start])
    x = torch.randn(1, model.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.equal(model.predict(x, 0.5, text), model.predict(x, 0.5, plain))


def test_a_tail_does_not_move_the_picture_of_z_image() -> None:
    """Its places begin behind the text, rounded up to 32 tokens."""
    model = tiny_flow("zimage")
    rex = Concept("rex", "dog", "dog", "hiper", "tiny", model.base_fingerprint,
                  {"tail": torch.zeros(30, 16)})  # fmt: skip
    with pytest.raises(PromptError, match="would shift the positions"):
        embedded(model, ["a {rex}"], rex)


@pytest.mark.parametrize("kind", ["sd35", "flux", "qwen"])
def test_weights_in_a_prompt_are_refused(kind: str) -> None:
    model = tiny_flow(kind)
    with pytest.raises(PromptError, match=r"\(dog:1.3\) is a word weight, .* without weights"):
        model.embed(["a photo of a (dog:1.3)"])
    model.embed(["a photo of a (dog)"])  # brackets are text


class _Maps:
    """Every joint layer's whole map."""

    def __init__(self) -> None:
        self.found: list[tuple[Any, torch.Tensor]] = []

    def plan(self, site: Any) -> AttentionPlan:
        return AttentionPlan(record=Recording((0,), None, lambda s, m: self.found.append((s, m))))


@pytest.mark.parametrize("kind", ["sd35", "flux", "qwen", "zimage"])
def test_explain_shows_the_columns_of_the_words(kind: str) -> None:
    model, prompt = tiny_flow(kind), "a photo of a dog"
    settings = InvertSettings.filled({"steps": 1, "method": "direct", "guidance": 1.0})
    inversion = invert(model, PHOTO, prompt, settings)
    *_, last = explain.explain_steps(model, inversion, guidance=1.0)
    control, text = _Maps(), model.embed([prompt])
    with torch.no_grad():
        model.predict(inversion.noise, inversion.times[0], text, control)
    readings = model.readings(prompt)
    places = [one.first + 4 for one in readings]  # "dog" is the fifth token of each encoder
    heat = sum(
        m[0].mean(0)[:, site.text][:, places].sum(1)
        for site, m in control.found
        if site.kind == "joint"
    )
    grid = control.found[0][0].grid
    wanted = (heat / heat.max()).unflatten(0, grid)
    assert torch.allclose(last.attention.words["dog"], wanted, atol=1e-6)
    assert last.attention.self_map.shape == (grid[0] * grid[1],) * 2


def test_explain_refuses_a_picture_of_too_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "FINEST", 10)
    model = tiny_flow("flux")
    settings = InvertSettings.filled({"steps": 1, "method": "direct", "guidance": 1.0})
    inversion = invert(model, PHOTO, "a dog", settings)
    with pytest.raises(InputError, match="Use a smaller picture"):
        next(explain.explain_steps(model, inversion, guidance=1.0))
