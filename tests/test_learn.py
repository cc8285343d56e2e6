"""learn: the loop against a plain one in float64; what it learns; that it leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import tiny_model
from understudy.concept import Concept, applied, named_parameters
from understudy.diffusion.text import Text
from understudy.errors import ConceptError, InputError, PromptError, UnderstudyError
from understudy.learn import LearnStep, Subject, learn, learn_steps
from understudy.learn.batches import Batches, Prior
from understudy.learn.latent_cache import LatentCache, encode_photos
from understudy.learn.loss import Rows, part_means, row_losses
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.settings import LearnSettings

QUICK: dict[str, Any] = {
    "steps": 3,
    "learning_rate": 1e-3,
    "batch_size": 2,
    "prior_samples": 3,
    "prior_steps": 2,
}


def photos(count: int = 2, side: int = 32) -> Tensor:
    """Different smooth pictures."""
    random = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 3, 4, 4, generator=random) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def steps_of(
    model: StableDiffusion, cache: Path | None = None, count: int = 2, **knobs: Any
) -> Iterator[LearnStep]:
    return learn_steps(
        model,
        Subject("rex", "cat", photos(count, model.picture_size[0]), "sks"),
        settings=LearnSettings(**{**QUICK, **knobs}),
        cache=cache,
    )


def learnt(model: StableDiffusion, cache: Path | None = None, **knobs: Any) -> Concept:
    *_, last = steps_of(model, cache, **knobs)
    assert last.phase == "done" and last.concept is not None
    return last.concept


def weights(model: StableDiffusion) -> dict[str, Tensor]:
    parts = {"unet": model.unet, "text_encoder": model.text_encoder, "vae": model.vae}
    return {
        f"{part}.{key}": tensor.clone()
        for part, module in parts.items()
        for key, tensor in module.state_dict().items()
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def assert_no_trace(model: StableDiffusion, before: dict[str, Tensor]) -> None:
    assert same(weights(model), before)
    assert model.fingerprint == model.base_fingerprint
    assert not any(p.requires_grad or p.grad is not None for p in named_parameters(model).values())


# The loop against plain arithmetic


def plain_losses(model: StableDiffusion, prior: Tensor, steps: int) -> list[tuple[float, float]]:
    """DreamBooth as its equation reads, in float64, with the loop's random draws."""
    from diffusers import UNet2DConditionModel

    random = torch.Generator().manual_seed(0)
    plain = UNet2DConditionModel.from_config(model.unet.config).double()
    plain.load_state_dict(model.unet.state_dict())
    text = model.text_encoder.double()
    parameters = [*plain.parameters(), *text.requires_grad_(True).parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2, foreach=False)
    posterior = model.vae.double().encode(photos().double()).latent_dist
    factor = model.vae.config.scaling_factor
    alphas = model.schedule.alphas_cumprod.double()
    losses: list[tuple[float, float]] = []
    for _ in range(steps):
        # The draws: which photos, their spread, which class samples, noise, timesteps.
        which = torch.randint(2, (2,), generator=random)
        spread = torch.randn(2, *prior.shape[1:], generator=random).double()
        instance = (posterior.mean[which] + posterior.std[which] * spread) * factor
        x = torch.cat([instance, prior[torch.randint(3, (2,), generator=random)].double()])
        eps = torch.randn(x.shape, generator=random).double()
        t = torch.randint(1000, (4,), generator=random)
        # x_t, what is wanted, and the two mean squared errors.
        a = alphas[t].reshape(-1, 1, 1, 1)
        x_t = a.sqrt() * x + (1 - a).sqrt() * eps
        is_v = model.schedule.prediction == "v_prediction"
        wanted = a.sqrt() * eps - (1 - a).sqrt() * x if is_v else eps
        prompts = ["a photo of a sks cat"] * 2 + ["a photo of a cat"] * 2
        c = text(torch.tensor([model.tokenize(p).ids for p in prompts])).last_hidden_state
        error = (plain(x_t, t, c).sample - wanted) ** 2
        photo, klass = error[:2].mean(), error[2:].mean()
        (photo + 0.5 * klass).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append((photo.item(), klass.item()))
    return losses


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_losses_are_those_of_a_plain_loop_in_float64(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    steps = [s for s in steps_of(model, tmp_path, prior_weight=0.5) if s.phase == "learn"]
    prior = torch.stack([_latent(file) for file in sorted(tmp_path.rglob("*.safetensors"))])
    expected = plain_losses(tiny_model(kind), prior, steps=3)
    for step, (photo, klass) in zip(steps, expected, strict=True):
        assert step.photo_loss == pytest.approx(photo, rel=1e-5)
        assert step.prior_loss == pytest.approx(klass, rel=1e-5)
        assert step.loss == pytest.approx(photo + 0.5 * klass, rel=1e-5)


def _latent(file: Path) -> Tensor:
    from safetensors.torch import load_file

    return load_file(file)["latent"]


def batches_of(model: StableDiffusion, latents: LatentCache, count: int, klass: int = 0) -> Batches:
    prior = Prior(("a photo of a cat",), LatentCache(latents.mean.flip(-1)), 0.5) if klass else None
    return Batches(latents, (("a photo of a sks cat",),), prior, count, model.schedule)


def test_the_loss_is_the_photos_mean_and_lambda_times_the_classes_mean() -> None:
    model = tiny_model()
    batches = batches_of(model, encode_photos(model, photos()), 3, klass=1)
    (rows,) = batches.draw(torch.Generator().manual_seed(0))
    losses = torch.tensor([1.0, 3.0, 5.0, 10.0, 10.0, 16.0])
    photo, klass = part_means(losses, rows.part)
    assert (photo, klass) == (3.0, 12.0)
    assert float(losses @ rows.weights) == pytest.approx(3.0 + 0.5 * 12.0)
    assert rows.prompts.tolist() == [0, 0, 0, 1, 1, 1]
    assert batches.prompts == ("a photo of a sks cat", "a photo of a cat")
    shares = [rows.share(number, 4) for number in range(4)]
    assert sum(len(share) for share in shares) == 6
    total = sum(float(losses[n::4] @ share.weights) for n, share in enumerate(shares))
    assert total == pytest.approx(3.0 + 0.5 * 12.0)


def test_a_row_is_its_own_loss_whatever_else_is_in_the_batch() -> None:
    model = tiny_model()
    random = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=random)
    times = torch.tensor([0, 10, 500, 999])
    text = model.embed(["a photo of a cat"]).expand(4)
    zeros = torch.zeros(4, dtype=torch.long)
    rows = Rows(latents, noise, times, zeros, zeros, torch.ones(4))
    whole = row_losses(model, rows, text)
    for row in range(4):
        one = row_losses(model, rows.share(row, 4), text[:1])
        torch.testing.assert_close(one, whole[row : row + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_min_snr_weighs_the_error_of_the_clean_picture(kind: str) -> None:
    """Whatever is predicted, min(SNR, gamma) times the squared error of x_0."""
    model = tiny_model(kind)
    random = torch.Generator().manual_seed(0)
    x, eps, answer = torch.randn(3, 4, 4, 8, 8, generator=random, dtype=torch.float64)
    t = torch.tensor([1, 200, 600, 999])
    a = model.schedule.alphas_cumprod.double()[t].reshape(-1, 1, 1, 1)
    x_t = a.sqrt() * x + (1 - a).sqrt() * eps
    is_v = model.schedule.prediction == "v_prediction"
    if is_v:
        wanted, guess = (
            a.sqrt() * eps - (1 - a).sqrt() * x,
            a.sqrt() * x_t - (1 - a).sqrt() * answer,
        )
    else:
        wanted, guess = eps, (x_t - (1 - a).sqrt() * answer) / a.sqrt()
    snr = (a / (1 - a)).flatten()
    expected = snr.clamp(max=5.0) * (guess - x).square().flatten(1).mean(1)
    weights = model.schedule.min_snr(t, 5.0).double()
    ours = weights * (answer - wanted).square().flatten(1).mean(1)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


def test_a_mask_says_what_counts() -> None:
    model = tiny_model()
    cut = torch.zeros(2, 1, 32, 32)
    cut[:, :, :16] = 1.0
    latents = encode_photos(model, photos(), masks=cut, outside=0.0, flip=True)
    assert latents.mask is not None and latents.mask.shape == (4, 1, 16, 16)
    (rows,) = batches_of(model, latents, 2, klass=1).draw(torch.Generator().manual_seed(0))
    assert rows.mask is not None and bool((rows.mask[2:] == 1).all())
    text = model.embed(["a photo of a cat"]).expand(4)
    with torch.no_grad():
        masked = row_losses(model, rows, text)
        answer = model.predict(
            model.schedule.noised(rows.latents, rows.noise, rows.times), rows.times, text
        )
    error = (answer - rows.noise).square()
    torch.testing.assert_close(masked[:2], error[:2, :, :8].flatten(1).mean(1))
    torch.testing.assert_close(masked[2:], error[2:].flatten(1).mean(1))


# What is learnt


@pytest.mark.parametrize("kind, precision", [("sd15", "float32"), ("toy", "bfloat16")])
def test_one_photo_is_overfitted(kind: str, precision: str) -> None:
    model = tiny_model(kind)
    knobs: dict[str, Any] = {"steps": 60, "learning_rate": 5e-3, "batch_size": 4}
    concept = learnt(model, count=1, prior_samples=0, precision=precision, **knobs)
    latents = encode_photos(model, photos(1, model.picture_size[0]))
    (fixed,) = batches_of(model, latents, 24).draw(torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = float(row_losses(model, fixed, _text(model)).mean())
        with applied(model, concept):
            after = float(row_losses(model, fixed, _text(model)).mean())
    assert after < 0.75 * before


def _text(model: StableDiffusion) -> Text:
    return model.embed(["a photo of a sks cat"]).expand(24)


def test_the_phases_come_in_order_and_the_concept_at_the_end() -> None:
    model = tiny_model()
    steps = list(steps_of(model))
    assert [step.phase for step in steps] == ["prior"] * 2 + ["learn"] * 3 + ["done"]
    assert [step.index for step in steps] == [0, 1, 0, 1, 2, 0]
    assert [step.total for step in steps] == [2, 2, 3, 3, 3, 1]
    assert all(math.isnan(step.loss) == (step.phase != "learn") for step in steps)
    concept = steps[-1].concept
    assert concept is not None and concept.phrase == "sks cat"
    assert concept.base_fingerprint == model.fingerprint and concept.base_model == model.name
    assert concept.record["steps"] == 3 and concept.record["photos"] == 2
    assert {key.split(".")[0] for key in concept.tensors} == {"unet", "text_encoder"}


def test_the_learnt_weights_are_put_on_to_within_half_precision() -> None:
    model = tiny_model()
    trained: dict[str, Tensor] = {}
    for step in steps_of(model):
        if step.phase == "learn":
            trained = {key: p.detach().clone() for key, p in named_parameters(model).items()}
        if step.concept is not None:
            with applied(model, step.concept):
                for key, parameter in named_parameters(model).items():
                    torch.testing.assert_close(parameter.data, trained[key], rtol=0, atol=5e-6)


def test_without_prior_preservation_nothing_is_sampled() -> None:
    model = tiny_model()
    for knobs in ({"prior_samples": 0}, {"prior_weight": 0.0}):
        before = model.nfe
        steps = list(steps_of(model, **knobs))
        assert [step.phase for step in steps] == ["learn"] * 3 + ["done"]
        assert model.nfe - before == 3 * 2 and math.isnan(steps[0].prior_loss)


def test_the_text_encoder_may_stand_still() -> None:
    concept = learnt(tiny_model(), train_text_encoder=False)
    assert {key.split(".")[0] for key in concept.tensors} == {"unet"}


def test_a_second_run_finds_the_class_in_the_cache(tmp_path: Path) -> None:
    model = tiny_model()
    before = model.nfe
    first = learnt(model, tmp_path)
    assert model.nfe - before == 3 * 2 * 2 + 3 * 4
    before = model.nfe
    second = learnt(model, tmp_path)
    assert model.nfe - before == 3 * 4
    assert same(dict(first.tensors), dict(second.tensors))
    before = model.nfe
    learnt(model, tmp_path, seed=5)  # another run of another subject
    assert model.nfe - before == 3 * 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_runs_repeat_bit_for_bit_and_seeds_differ(precision: str) -> None:
    one, again = (dict(learnt(tiny_model(), precision=precision).tensors) for _ in range(2))
    assert same(one, again)
    assert not same(one, dict(learnt(tiny_model(), precision=precision, seed=1).tensors))


def test_half_precision_models_learn_in_float32() -> None:
    model = tiny_model(dtype=torch.bfloat16)
    before = weights(model)
    for step in steps_of(model):
        if step.phase == "learn":
            assert {p.dtype for p in named_parameters(model).values()} == {torch.float32}
    assert_no_trace(model, before)


def test_mirrored_photos_are_encoded_beside_the_photos() -> None:
    model = tiny_model()
    latents = encode_photos(model, photos(), flip=True)
    mirrored = encode_photos(model, photos().flip(-1))
    torch.testing.assert_close(latents.mean[2:], mirrored.mean)
    assert len(encode_photos(model, photos()).mean) == 2


def test_a_bank_draws_latents_of_the_right_mean_and_spread() -> None:
    mean, std = torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1), torch.full((2, 1, 1, 1), 0.1)
    random = torch.Generator().manual_seed(0)
    latents = LatentCache(mean, std)
    drawn = latents.draw(latents.pick(4000, random), random).flatten()
    low = drawn[drawn < 3]
    assert 0.47 < len(low) / 4000 < 0.53
    assert float(low.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(low.std()) == pytest.approx(0.1, rel=0.05)
    plain = LatentCache(mean)
    assert set(plain.draw(plain.pick(50, random), random).flatten().tolist()) == {1.0, 5.0}


# Leaving no trace


def test_the_model_is_as_before_at_the_end() -> None:
    model = tiny_model()
    before = weights(model)
    for step in steps_of(model):
        if step.phase == "done":
            assert_no_trace(model, before)
    assert_no_trace(model, before)


@pytest.mark.parametrize("phase", ["prior", "learn"])
def test_closing_takes_everything_back(phase: str) -> None:
    model = tiny_model()
    before = weights(model)
    steps = steps_of(model)
    while next(steps).phase != phase:
        pass
    next(steps)
    if phase == "learn":
        assert not same(weights(model), before)
    steps.close()  # type: ignore[attr-defined]
    assert_no_trace(model, before)


def test_an_error_inside_takes_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    before = weights(model)
    steps = steps_of(model)
    while next(steps).phase != "learn":
        pass
    monkeypatch.setattr("understudy.learn.training.row_losses", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(steps)
    assert_no_trace(model, before)


def test_a_loss_that_is_no_number_stops_at_once_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    before = weights(model)
    taken: list[int] = []

    def broken(*given: Any) -> Tensor:
        taken.append(1)
        return row_losses(*given) * (math.nan if len(taken) == 2 else 1.0)

    monkeypatch.setattr("understudy.learn.training.row_losses", broken)
    with pytest.raises(
        UnderstudyError, match=r"step 2: the loss is nan.*learning rate below 0.001"
    ):
        learnt(model)
    assert len(taken) == 2
    assert_no_trace(model, before)


def test_learning_works_under_no_grad_and_leaves_the_mode() -> None:
    with torch.no_grad():
        concept = learnt(tiny_model())
        assert not torch.is_grad_enabled()
    assert concept.tensors


# What is refused


def test_a_model_that_wears_a_concept_learns_no_other() -> None:
    model = tiny_model()
    concept = learnt(model)
    with applied(model, concept), pytest.raises(ConceptError, match="has a concept applied"):
        learnt(model)


@pytest.mark.parametrize(
    "knobs, error, what",
    [
        ({"class_noun": " "}, InputError, "--class"),
        ({"class_noun": "{cat}"}, InputError, "--class"),
        ({"name": "no name"}, InputError, "name"),
        ({"identifier": "two words"}, InputError, "--identifier"),
        ({"settings": LearnSettings(prompt="a photo")}, PromptError, "--prompt"),
        ({"settings": LearnSettings(prompt="a {subject} " * 30)}, PromptError, "tokens"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    knobs: dict[str, Any], error: type[Exception], what: str
) -> None:
    model = tiny_model()
    given = {"name": "rex", "class_noun": "cat", "identifier": "sks"} | knobs
    with pytest.raises(error, match=what):
        learn(model, photos(), **given)
    assert model.nfe == 0
