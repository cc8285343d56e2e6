"""Prior preservation by the untrained model's output: its targets, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from test_learn import assert_no_trace, photos, weights
from test_learn_methods import learnt
from tiny import tiny_model
from understudy.errors import InputError
from understudy.learn.batches import Batches, Prior
from understudy.learn.dreambooth import whole_model
from understudy.learn.latent_cache import LatentCache, encode_photos
from understudy.learn.preservation import contexts_of
from understudy.learn.training import Trainer, TrainOptions
from understudy.settings import LearnSettings

CLASS = "a photo of a cat"


def batches_of(model, count: int = 2) -> Batches:
    latents = encode_photos(model, photos(count, model.picture_size[0]))
    prior = Prior((CLASS,), LatentCache(latents.mean.flip(-1)), 5.0, by_output=True)
    return Batches(latents, (("a photo of a sks cat",),), prior, count, model.schedule)


@pytest.mark.parametrize("half", [False, True])
def test_class_rows_learn_what_the_untrained_model_gives(half: bool) -> None:
    """Also while the text encoder trains, and under autocast: the untrained one reads the class."""
    model = tiny_model()
    batches = batches_of(model)
    autocast = torch.bfloat16 if half else None
    options = TrainOptions(learning_rate=3e-2, autocast=autocast)
    (rows,) = batches.draw(torch.Generator().manual_seed(3))
    kept = rows.part == 1
    noised = model.schedule.noised(rows.latents, rows.noise, rows.times)[kept]

    def class_output() -> torch.Tensor:
        text = model.embed([CLASS])[torch.zeros(len(noised), dtype=torch.long)]
        return model.predict(noised, rows.times[kept], text)

    with torch.no_grad():
        target = class_output()
    with whole_model(model, train_text=True) as trainable:
        trainer = Trainer(model, trainable, batches, options, torch.Generator().manual_seed(0))
        for _ in range(2):
            trainer.step()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = trainer.losses(rows, trainer.text(rows.prompts))[kept]
        with torch.no_grad():
            wanted = (class_output() - target).square().flatten(1).mean(1)
    assert wanted.min() > 1e-3, "training changed the class's pictures"
    torch.testing.assert_close(found, wanted, rtol=0.15 if half else 1e-4, atol=0)


def test_the_first_step_has_no_loss_of_the_class_and_others_have() -> None:
    model = tiny_model()
    with whole_model(model, train_text=True) as trainable:
        options = TrainOptions(learning_rate=1e-2)
        trainer = Trainer(
            model, trainable, batches_of(model), options, torch.Generator().manual_seed(0)
        )
        first, second = trainer.step(), trainer.step()
    assert first.prior_loss < 1e-9 < 1e-5 < second.prior_loss
    assert first.loss == pytest.approx(first.photo_loss)
    assert second.loss == pytest.approx(second.photo_loss + 5 * second.prior_loss)


def test_class_images_read_their_prompt_with_every_context_or_none() -> None:
    """And learn what the untrained model gives for that prompt, not for the class alone."""
    model = tiny_model()
    contexts = contexts_of(
        LearnSettings(preservation="output", class_contexts=" on grass;at night; at night;")
    )
    assert contexts == ("on grass", "at night")
    plain = batches_of(model, 4)
    assert plain.prior is not None
    batches = replace(plain, prior=replace(plain.prior, contexts=contexts))
    assert batches.prompts[1:] == (CLASS, f"{CLASS} on grass", f"{CLASS} at night")
    generator, read = torch.Generator().manual_seed(0), set[int]()
    for _ in range(8):
        (rows,) = batches.draw(generator)
        assert rows.prompts[rows.part == 0].unique().tolist() == [0]
        read |= set(rows.prompts[rows.part == 1].tolist())
    assert read == {1, 2, 3}
    with whole_model(model, train_text=True) as trainable:
        options = TrainOptions(learning_rate=1e-2)
        trainer = Trainer(model, trainable, batches, options, torch.Generator().manual_seed(0))
        assert trainer.step().prior_loss < 1e-9 < 1e-5 < trainer.step().prior_loss


def test_contexts_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preservation by the model's output reads them; samples, which they would not describe,
    are learnt with the class prompt alone."""
    drawn: list[tuple[str, ...]] = []
    plain = Trainer.__init__

    def kept(self: Trainer, *args: Any, **more: Any) -> None:
        drawn.append(args[2].prompts)
        plain(self, *args, **more)

    monkeypatch.setattr(Trainer, "__init__", kept)
    for how in ("samples", "sample-output", "output"):
        learnt(
            tiny_model(), method="dreambooth", steps=1, prior_samples=2, preservation=how,
            class_contexts="at night",
        )  # fmt: skip
    samples, *others = drawn
    assert samples[-1] == CLASS
    assert [prompts[-2:] for prompts in others] == [(CLASS, f"{CLASS} at night")] * 2


@pytest.mark.parametrize("preservation", ["sample-output", "output"])
@pytest.mark.parametrize("method", ["dreambooth", "lora", "pivotal"])
def test_every_method_with_a_class_learns_by_it(method: str, preservation: str) -> None:
    model = tiny_model()
    before = weights(model)
    by_noise, by_output = (
        learnt(model, method=method, steps=4, prior_samples=2, preservation=how).tensors
        for how in ("samples", preservation)
    )
    assert by_noise.keys() == by_output.keys()
    assert any(not torch.equal(by_noise[name], by_output[name]) for name in by_noise)
    assert_no_trace(model, before)


@pytest.mark.parametrize("preservation", ["sample-output", "output"])
@pytest.mark.parametrize("method", ["hiper", "textual-inversion"])
def test_methods_that_leave_the_class_refuse_it(method: str, preservation: str) -> None:
    with pytest.raises(InputError, match="leaves every class as it is"):
        learnt(tiny_model(), method=method, preservation=preservation)


def test_published_presets_keep_the_papers_target() -> None:
    for preset in ("paper", "photoswap"):
        how = LearnSettings.filled({"preset": preset}, "toybox")
        assert (how.preservation, how.prior_weight) == ("samples", 1.0)
