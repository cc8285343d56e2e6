"""Controls of `generate`: samplers, a photo to begin with, variations, long prompts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import pictures
from tiny import tiny_folder, tiny_model
from understudy.diffusion.long_prompts import chunks, embedded_long, fits
from understudy.diffusion.prompt_weights import weighted
from understudy.errors import InputError
from understudy.generate import arc, generate, generate_steps
from understudy.jobs.events import Note, Result
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.models.samplers import solver
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe
from understudy.settings import GenerateSettings, RunSettings

SOLVERS = ("dpm++", "unipc", "euler")


def drawn(model, **how: object) -> torch.Tensor:
    """The last latents of a short run from seed 3."""
    told = {"steps": 4, "guidance": 3.0, **how}
    init = told.pop("init", None)
    *_, last = generate_steps(model, ["a red cat"], [3], GenerateSettings(**told), init=init)
    return last.latents


@pytest.mark.parametrize("name", SOLVERS)
def test_a_samplers_noise_levels_are_the_models_own(name: str) -> None:
    model = tiny_model("sd15")
    found = solver(model, name)
    assert torch.allclose(found.alphas_cumprod, model.schedule.alphas_cumprod, atol=1e-6)
    assert found.config.prediction_type == model.schedule.prediction


@pytest.fixture(scope="module")
def exact() -> torch.Tensor:
    """Where DDIM ends with very many steps."""
    return drawn(tiny_model("toy"), steps=200)


@pytest.mark.parametrize("name", SOLVERS)
def test_many_steps_of_every_sampler_lead_to_the_same_picture(
    name: str, exact: torch.Tensor
) -> None:
    """All follow one differential equation: with more steps they come closer to DDIM's end."""
    model = tiny_model("toy")
    few, many = (drawn(model, sampler=name, steps=n) for n in (5, 60))
    scale = float(exact.std())
    assert float((many - exact).std()) < 0.15 * scale
    assert float((many - exact).std()) < float((few - exact).std())


def test_fresh_noise_goes_with_ddim_alone() -> None:
    with pytest.raises(InputError, match="--eta needs --sampler ddim"):
        drawn(tiny_model("toy"), sampler="euler", eta=0.5)
    assert GenerateSettings.filled({"sampler": "unipc"}, "toybox").eta == 0


@pytest.mark.parametrize("name", ["ddim", *SOLVERS])
def test_strength_says_how_much_of_a_photo_is_kept(name: str) -> None:
    model = tiny_model("sd15")
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    clean = model.encode(photo)
    how = {"sampler": name, "steps": 10, "init": photo}
    apart = [float((drawn(model, strength=s, **how) - clean).std()) for s in (0.1, 0.5, 1.0)]
    assert apart[0] < apart[1] < apart[2]
    del how["init"]
    settings = GenerateSettings(strength=0.3, **how)
    counted = list(generate_steps(model, ["a"], [0], settings, init=photo))
    assert [(step.index, step.total) for step in counted] == [(0, 3), (1, 3), (2, 3)]


def test_variations_are_nearer_than_other_seeds() -> None:
    model, few = tiny_model("toy"), GenerateSettings(steps=3, guidance=1.0)

    def made(share: float) -> torch.Tensor:
        given = (5, share) if share else None
        *_, last = generate_steps(model, ["a cat"] * 3, [5, 6, 7], few, variation=given)
        return last.latents

    plain, near, far = made(0), made(0.1), made(1.0)
    assert torch.allclose(near[0], plain[0], atol=1e-5)
    assert float((near[1] - plain[0]).std()) < float((far[1] - plain[0]).std())
    assert float((near[1] - near[2]).std()) > 0
    one, other = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(arc(one, other, 0.0), one) or torch.allclose(arc(one, other, 0.0), one)
    assert arc(one, other, 0.5).std() == pytest.approx(1, abs=0.15)


def test_a_long_prompt_is_cut_between_words_and_keeps_its_weights() -> None:
    def short(text: str) -> bool:
        return len(weighted(text).text.split()) <= 4

    prompt = r"a (red cat:1.3) on, the beach \(old\) in the (sun:0.5) with a dog"
    found = chunks(prompt, short)
    assert all(map(short, found)) and len(found) > 2
    joined = [(w, x) for part in found for w, x in words(part)]
    assert joined == words(prompt)
    assert chunks("a cat", short) == ["a cat"]


def words(prompt: str) -> list[tuple[str, float]]:
    """The words of a prompt, each with its weight."""
    said, found = weighted(prompt), list[tuple[str, float]]()
    ends = [-1, *(i for i, c in enumerate(said.text) if c == " "), len(said.text)]
    for start, end in pairwise(ends):
        if said.text[start + 1 : end]:
            found.append((said.text[start + 1 : end], round(said.weights[start + 1], 4)))
    return found


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_all_of_a_long_prompt_is_read(kind: str) -> None:
    model = tiny_model(kind)
    long = " ".join(["a red cat on the beach"] * 20)
    assert not fits(model, long)
    text, empty = embedded_long(model, [long, "a cat"], [""])
    assert text.tokens.shape[1] == empty.tokens.shape[1] > model.max_tokens
    assert text.tokens.shape[1] % model.max_tokens == 0
    assert torch.equal(text.tokens[1:, : model.max_tokens], model.embed(["a cat"]).tokens)
    one, other = (
        generate(model, [p], [0], GenerateSettings(steps=2)) for p in (long, long + " dog")
    )
    assert not torch.equal(one, other)


def run_of(out: str, **given: object) -> tuple[Result, list[str]]:
    settings = given.pop("settings", GenerateSettings(steps=2, guidance=2.0))
    job = Job.of(
        "generate",
        settings,
        RunSettings(model=str(tiny_folder("toy")), device="cpu"),
        prompt="a photo of cat",
        out=Path(out),
        seed=4,
        **given,
    )
    events = list(run(job))
    return events[-1], [event.text for event in events if isinstance(event, Note)]


def test_the_recipe_holds_the_controls_and_makes_the_picture_again(here: Path) -> None:
    photo = pictures.save(here / "wide.png", pictures.gradient(80, 120))
    settings = GenerateSettings(steps=4, guidance=2.0, sampler="dpm++", strength=0.5)
    _, notes = run_of("one.png", settings=settings, init=photo)
    assert any("cropped" in note for note in notes)
    recipe = read_recipe("one.png")
    assert recipe.settings["sampler"] == "dpm++" and recipe.settings["strength"] == 0.5
    assert [one.role for one in recipe.ingredients] == ["init"]
    models = [str(tiny_folder("toy").parent)]
    job = Job.of("rerun", picture=Path("one.png"), out=Path("two.png"), inputs=models)
    again = list(run(job))[-1]
    assert isinstance(again, Result) and again.values["identical"]
    assert np.array_equal(read_photo("one.png").pixels, read_photo("two.png").pixels)


def test_a_setting_that_changes_nothing_is_refused(here: Path) -> None:
    with pytest.raises(InputError, match="--strength needs --init"):
        run_of("a.png", settings=GenerateSettings(strength=0.4))
    with pytest.raises(InputError, match="--variations needs a --count"):
        run_of("a.png", settings=GenerateSettings(variations=0.4))
