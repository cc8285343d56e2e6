"""invert/: the value on disk, the cache, the verb, and what null-text inversion promises."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from tiny import tiny_model
from understudy.diffusion.sampler import invert_steps, sample_steps
from understudy.errors import InputError, OutputError, PromptError
from understudy.invert.cache import cache_key
from understudy.invert.inversion import Inversion, ddim_inversion_steps
from understudy.invert.invert import inversion_steps, invert
from understudy.invert.null_text import Moment, null_text_step, null_text_steps
from understudy.settings import InvertSettings

PROMPT = "a photo of cat on the beach"


def photo(model, seed: int = 0):
    height, width = model.picture_size
    drawn = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(drawn, scale_factor=8, mode="bilinear") * 2 - 1


def quick(method: str = "null-text", **how):
    return InvertSettings(**({"method": method, "steps": 4, "inner_steps": 2} | how))


# --- The value ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ddim", "null-text", "negative-prompt", "direct"])
def test_an_inversion_is_saved_and_loaded_whole(tmp_path, method):
    model = tiny_model("sd21")
    made = invert(model, photo(model), PROMPT, quick(method))
    assert made.method == method and made.steps == 4
    file = made.save(tmp_path / "beach.inversion.safetensors")
    back = Inversion.load(file)
    for name, value in vars(made).items():
        other = getattr(back, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_that_is_no_inversion_is_named(tmp_path):
    model = tiny_model("sd15")
    whole = invert(model, photo(model), PROMPT, quick("ddim")).save(tmp_path / "a.safetensors")
    for name, content in {
        "text": b"hello",
        "empty": b"",
        "torn": whole.read_bytes()[:-10],
        "header": whole.read_bytes()[:100],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            Inversion.load(tmp_path / name)
    with pytest.raises(InputError, match="missing"):
        Inversion.load(tmp_path / "missing")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="other is not a valid inversion"):
        Inversion.load(tmp_path / "other")


def test_an_inversion_knows_what_it_belongs_to():
    model = tiny_model("sd15")
    made = invert(model, photo(model), PROMPT, quick("ddim"))
    made.check(model, PROMPT)
    with pytest.raises(PromptError, match="a photo of dog"):
        made.check(model, "a photo of dog")
    with pytest.raises(InputError, match=made.model):
        made.check(tiny_model("sd21"))
    with pytest.raises(InputError, match="times"):
        replace(made, times=(900, 600, 300, 1)).check(model)


# --- DDIM and null-text -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd15", "sd21", "toy"])
def test_ddim_inversion_is_the_samplers_way_back(kind):
    model = tiny_model(kind, dtype=torch.float64)
    latents = model.encode(photo(model).double())
    walked = [step.latents for step in ddim_inversion_steps(model, latents, PROMPT, steps=5)]
    other = [step.latents for step in invert_steps(model, latents, model.embed([PROMPT]), steps=5)]
    assert torch.allclose(torch.cat(walked), torch.cat(other), rtol=0, atol=1e-12)


def test_a_step_that_moves_nothing_costs_nothing():
    model = tiny_model("sd15")
    model.schedule = replace(model.schedule, steps_offset=0)
    latents = model.encode(photo(model))
    *_, last = ddim_inversion_steps(model, latents, PROMPT, steps=5)
    assert model.nfe == 4
    assert torch.equal(last.inversion.trajectory[0], last.inversion.trajectory[1])
    before = model.nfe
    steps = list(
        null_text_steps(model, latents, PROMPT, quick(steps=5, inner_steps=3, epsilon=0.0))
    )
    assert model.nfe - before == 4 + 4 * (1 + 3 + 1)
    nulls = steps[-1].inversion.null_embeddings
    assert nulls[-1].equals(nulls[-2])


@pytest.mark.parametrize("kind", ["sd15", "sd21", "toy"])
def test_null_text_brings_guided_sampling_back_to_the_photo(kind):
    model = tiny_model(kind, dtype=torch.float32)
    made = invert(model, photo(model), PROMPT, quick(steps=4, inner_steps=6))
    latents, text = made.trajectory[:1], model.embed([PROMPT])
    *_, plain = sample_steps(
        model, made.noise, text, model.embed([""]), steps=4, guidance=made.guidance
    )
    tuned = made.replay[-1:]
    assert (tuned - latents).square().mean() < (plain.latents - latents).square().mean()


def test_null_text_touches_neither_weights_nor_their_gradients():
    model = tiny_model("sd15")
    before = {name: weight.clone() for name, weight in model.unet.state_dict().items()}
    for weight in model.unet.parameters():
        weight.requires_grad_()
    invert(model, photo(model), PROMPT, quick())
    assert all(weight.grad is None for weight in model.unet.parameters())
    assert all(torch.equal(w, before[n]) for n, w in model.unet.state_dict().items())
    assert torch.is_grad_enabled()


def test_more_than_a_hundred_steps_keep_a_positive_rate():
    model = tiny_model("sd15")
    text, null = model.embed([PROMPT]), model.embed([""])
    wanted = model.encode(photo(model))
    step = null_text_step(
        model,
        wanted + 0.1,
        wanted,
        text,
        null,
        Moment(119, 9, 1),
        InvertSettings(steps=120, inner_steps=3, epsilon=0.0),
    )
    assert len(step.losses) == 3 and step.losses[-1] < step.losses[0]
    assert 0 < (step.null.tokens - null.tokens).abs().max() < 3 * 0.51e-2


def test_inversion_works_off_the_native_size_and_in_bfloat16():
    model = tiny_model("sd15", dtype=torch.bfloat16)
    wide = torch.nn.functional.interpolate(photo(model), size=(32, 48))
    made = invert(model, wide, PROMPT, quick())
    assert made.trajectory.shape[-2:] == (16, 24)
    assert made.trajectory.dtype == made.null_embeddings.dtype == torch.float32
    with pytest.raises(InputError, match="multiples of 2.*Got 33 x 32"):
        invert(model, wide[..., :33], PROMPT, quick())


# --- The cache ----------------------------------------------------------------------------------


def test_a_second_time_it_comes_from_the_cache(tmp_path):
    model = tiny_model("sd15")
    steps = list(inversion_steps(model, photo(model), PROMPT, quick(), cache=tmp_path))
    assert len(steps) == 8
    rows = model.nfe
    again = list(inversion_steps(model, photo(model), PROMPT, quick(), cache=tmp_path))
    assert model.nfe == rows and len(again) == 1
    first, second = steps[-1].inversion, again[-1].inversion
    assert first.null_embeddings.equals(second.null_embeddings)
    assert first.picture == second.picture


def test_whatever_an_inversion_depends_on_is_in_its_key():
    model = tiny_model("sd15")
    settings = {"method": "ddim", "steps": 4}
    base = cache_key(model, "a" * 64, PROMPT, settings)
    assert base == cache_key(tiny_model("sd15"), "a" * 64, PROMPT, dict(settings))
    other_schedule = tiny_model("sd15")
    other_schedule.schedule = replace(model.schedule, steps_offset=0)
    others = [
        cache_key(model, "b" * 64, PROMPT, settings),
        cache_key(model, "a" * 64, PROMPT + " red", settings),
        cache_key(model, "a" * 64, PROMPT, settings | {"steps": 5}),
        cache_key(tiny_model("sd21"), "a" * 64, PROMPT, settings),
        cache_key(tiny_model("sd15", dtype=torch.bfloat16), "a" * 64, PROMPT, settings),
        cache_key(other_schedule, "a" * 64, PROMPT, settings),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_settings_a_method_does_not_listen_to_make_no_second_entry(tmp_path):
    model = tiny_model("sd15")
    for guidance in (1.0, 7.5):
        invert(model, photo(model), PROMPT, quick("direct", guidance=guidance), cache=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    model = tiny_model("sd15")
    made = invert(model, photo(model), PROMPT, quick("ddim"), cache=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8] if damage is None else damage)
    again = invert(model, photo(model), PROMPT, quick("ddim"), cache=tmp_path)
    assert torch.equal(made.trajectory, again.trajectory)
    assert torch.equal(Inversion.load(file).trajectory, made.trajectory)


def test_an_entry_of_nonsense_numbers_is_made_again(tmp_path):
    model = tiny_model("sd15")
    made = invert(model, photo(model), PROMPT, quick("ddim"), cache=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    replace(made, trajectory=made.trajectory * float("nan")).save(file)
    again = invert(model, photo(model), PROMPT, quick("ddim"), cache=tmp_path)
    assert torch.equal(made.trajectory, again.trajectory)


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path, monkeypatch):
    def refuse(*_):
        raise OutputError("read-only")

    model = tiny_model("sd15")
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    assert invert(model, photo(model), PROMPT, quick("ddim"), cache=in_the_way).steps == 4
    monkeypatch.setattr(Inversion, "save", refuse)
    assert invert(model, photo(model), PROMPT, quick("ddim"), cache=tmp_path).steps == 4


def test_two_that_want_the_same_entry_make_it_once(tmp_path):
    models = [tiny_model("sd15") for _ in range(2)]
    picture = photo(models[0])
    threads = [
        threading.Thread(
            target=invert, args=(m, picture, PROMPT, quick()), kwargs={"cache": tmp_path}
        )
        for m in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(model.nfe > 0 for model in models) == [False, True]
