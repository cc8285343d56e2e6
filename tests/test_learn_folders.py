"""Learning from real folders: captions, masks, shapes, near-duplicates, writing, class images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pictures
from tiny import tiny_model
from understudy.errors import InputError, PromptError
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.jobs.training_photos import LearnWish, crop_of, subject_of, with_class_images
from understudy.jobs.work import Work
from understudy.learn import Subject, learn_steps
from understudy.learn.batches import Batches, Bucket, Prior
from understudy.learn.captions import has_writing, prompt_of
from understudy.learn.dreambooth import whole_model
from understudy.learn.latent_cache import LatentCache
from understudy.learn.loss import row_losses
from understudy.learn.photo_groups import encoded_photos
from understudy.learn.subject import PhotoGroup, name_subjects
from understudy.learn.training import Trainer, TrainOptions
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.pictures.folders import list_folder
from understudy.pictures.shapes import bucket_of, cut_share, step_of
from understudy.settings import LearnSettings

QUICK: dict[str, Any] = {
    "steps": 2,
    "learning_rate": 1e-3,
    "batch_size": 2,
    "prior_samples": 4,
    "prior_steps": 1,
}


def picture(seed: int, height: int = 48, width: int = 48) -> np.ndarray:
    """Large squares of random colours."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    return small[rows][:, columns]


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return tiny_model()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos: one wide with a caption, one with a mask, two nearly equal."""
    here = tmp_path / "photos"
    pictures.save(here / "a.png", picture(1, 48, 72))
    (here / "a.txt").write_text("a cat sitting\n on the beach")
    pictures.save(here / "b.png", picture(2))
    mask = np.zeros((48, 48, 3), np.uint8)
    mask[8:40, 24:] = 255
    pictures.save(here / "b.mask.png", mask)
    pictures.save(here / "c.png", picture(3))
    pictures.save(here / "d.jpg", picture(3), quality=80)
    (here / "stray.txt").write_text("of nothing")
    return here


def read(
    model: StableDiffusion, folder: Path, class_images: Path | None = None, **knobs: Any
) -> tuple[Subject, str]:
    """The subject, and the notes as one text."""
    work = Work(Job(verb="learn"), Pool())
    settings = LearnSettings(**{**QUICK, **knobs})
    wish = LearnWish("rex", "cat", folder, "sks", class_images=class_images)
    subject = subject_of(work, model, settings, wish)
    return subject, "\n".join(work.notes)


def test_captions_and_masks_are_not_photos(folder: Path) -> None:
    listing = list_folder(folder)
    assert [file.name for file in listing.files] == ["a.png", "b.png", "c.png", "d.jpg"]
    assert listing.captions == {folder / "a.png": folder / "a.txt"}
    assert listing.masks == {folder / "b.png": folder / "b.mask.png"}
    assert listing.notes == ("stray.txt is a caption without a photo and was skipped.",)


def test_a_folder_becomes_groups_of_one_size_each(model: StableDiffusion, folder: Path) -> None:
    subject, notes = read(model, folder)
    wide, square = subject.groups
    assert wide.size == bucket_of((48, 72), (32, 32), 4) and wide.size[1] > wide.size[0]
    assert square.size == (32, 32) and subject.photos.shape == (4, 3, 32, 32)
    assert wide.captions == ("a cat sitting on the beach",) and square.captions == ()
    assert square.weights == (1.0, 0.5, 0.5), "near-duplicates share one photo's weight"
    assert square.masks is not None and wide.masks is not None
    assert square.masks[0, 0, :, :12].max() == 0 and square.masks[0, 0, 16, 24] == 1
    assert square.masks[1].min() == 1, "photos without a mask count in full"
    assert "d.jpg is almost the same as c.png" in notes and "1 of 4 photos" in notes

    plain, notes = read(model, folder, buckets=False, captions=False, weight_duplicates=False)
    (only,) = plain.groups
    assert only.size == (32, 32) and only.weights == (1.0,) * 4 and not only.captions
    assert torch.equal(only.photos, subject.photos) and "not used: --no-captions" in notes


def trained(model: StableDiffusion, subject: Subject, **knobs: Any) -> tuple[torch.Tensor, float]:
    """A changed weight, and the first step's loss."""
    steps = list(learn_steps(model, subject, settings=LearnSettings(**{**QUICK, **knobs})))
    concept = steps[-1].concept
    assert concept is not None
    losses = [step.photo_loss for step in steps if step.phase == "learn"]
    return next(iter(concept.tensors.values())), losses[0]


def test_captions_are_trained_on(model: StableDiffusion, folder: Path) -> None:
    """Fails if captions are ignored: equal draws, so only the prompt can change the loss."""
    subject, _ = read(model, folder, buckets=False)
    (group,) = subject.groups
    named = name_subjects(model, [subject], LearnSettings(**QUICK))
    photos = encoded_photos(model, named, LearnSettings(**QUICK))
    assert photos.wordings == (
        ("a photo of a sks cat",),
        ("a sks cat sitting on the beach",),
    )
    (cache,) = photos.sizes
    assert cache.wording is not None and cache.wording.tolist() == [1, 0, 0, 0]
    alone = replace(group, photos=group.photos[:1], masks=None, weights=(), captions=("",))
    told = replace(alone, captions=group.captions[:1])
    once, without = trained(model, replace(subject, groups=(alone,)), prior_samples=0)
    again, caption = trained(model, replace(subject, groups=(told,)), prior_samples=0)
    assert without != caption and not torch.equal(once, again)
    assert trained(model, replace(subject, groups=(alone,)), prior_samples=0)[1] == without


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [
        ("A cat on a cat tree", "A sks cat on a cat tree"),
        ("{subject} in the snow", "sks cat in the snow"),
        ("a {rex}, asleep", "a sks cat, asleep"),
        ("concatenated boxes", "a photo of a sks cat, concatenated boxes"),
    ],
)
def test_where_a_caption_says_the_subject(caption: str, prompt: str) -> None:
    assert prompt_of(caption, "sks cat", "cat", "rex", "a photo of a sks cat") == prompt


def test_bad_captions_are_refused_in_one_line(model: StableDiffusion, folder: Path) -> None:
    with pytest.raises(PromptError, match=r"\{subject\} or \{rex\} and no other"):
        prompt_of("a {mia}", "sks cat", "cat", "rex", "")
    (folder / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"a\.txt is not UTF-8"):
        read(model, folder)
    (folder / "a.txt").write_text("cat " * 90)
    subject, _ = read(model, folder)
    with pytest.raises(PromptError, match="The caption 'cat cat"):
        name_subjects(model, [subject], LearnSettings(**QUICK))


def test_photos_of_several_sizes_train_with_class_images_of_each_size(
    model: StableDiffusion, folder: Path, cache: Path
) -> None:
    subject, _ = read(model, folder)
    settings = LearnSettings(**{**QUICK, "steps": 6})
    steps = list(learn_steps(model, subject, settings=settings, cache=cache / "classes"))
    losses = [step for step in steps if step.phase == "learn"]
    assert len(losses) == 6 and all(math.isfinite(s.photo_loss + s.prior_loss) for s in losses)
    drawn = [len(list(one.glob("*.safetensors"))) for one in (cache / "classes").iterdir()]
    assert sorted(filter(None, drawn)) == [1, 3], (
        "class images are shared out by the weight of the photos"
    )
    concept = steps[-1].concept
    assert concept is not None and concept.record["captioned"] == 1 and concept.record["masked"]
    assert concept.record["sizes"] == ["36x24", "32x32"]


def two_sizes(model: StableDiffusion, count: int) -> Batches:
    """A photo of 4 cells a side, one of 8 with the weight 3, and class images of both sizes."""
    small, large = (LatentCache(torch.zeros(1, 4, side, side)) for side in (4, 8))
    heavy = replace(large, weight=torch.tensor([3.0]))
    prior = Prior(("a cat",), small)
    more = (Bucket(heavy, Prior(("a cat",), large)),)
    return Batches(small, (("a sks cat",),), prior, count, model.schedule, more)


def test_photos_of_a_step_are_drawn_from_all_sizes_by_their_weights(model: StableDiffusion) -> None:
    batches, generator = two_sizes(model, 4), torch.Generator().manual_seed(0)
    photos: dict[int, int] = {4: 0, 8: 0}
    for _ in range(100):
        for rows in batches.draw(generator):
            side = rows.latents.shape[-1]
            photos[side] += int((rows.part == 0).sum())
            assert (rows.part == 0).sum() == (rows.part == 1).sum()
    assert sum(photos.values()) == 400
    assert 0.70 < photos[8] / 400 < 0.80


def test_the_loss_of_a_step_is_a_mean_over_the_photos_of_all_sizes(model: StableDiffusion) -> None:
    """However a step's photos fall on the sizes, photos and class images weigh 1 each in sum."""
    batches, generator = two_sizes(model, 4), torch.Generator().manual_seed(0)
    mixed = 0
    for _ in range(20):
        groups = batches.draw(generator)
        weights = torch.cat([rows.weights for rows in groups])
        part = torch.cat([rows.part for rows in groups])
        torch.testing.assert_close(weights[part == 0], torch.full((4,), 0.25))
        torch.testing.assert_close(weights[part == 1], torch.full((4,), 0.25))
        mixed += len(groups) > 1
    assert mixed > 5


def test_a_step_on_two_sizes_follows_the_gradient_of_both(model: StableDiffusion) -> None:
    """The gradient of a step is the sum of those of its groups, computed one by one."""
    batches = two_sizes(model, 4)
    options = TrainOptions(learning_rate=0.0, weight_decay=0.0, clip=0.0)
    with whole_model(model, train_text=False) as trainable:
        trainer = Trainer(model, trainable, batches, options, torch.Generator().manual_seed(3))
        groups = batches.draw(torch.Generator().manual_seed(3))
        assert len(groups) == 2
        loss = torch.zeros(())
        for rows in groups:
            text = model.embed([batches.prompts[n] for n in rows.prompts.tolist()])
            loss = loss + row_losses(model, rows, text) @ rows.weights
        loss.backward()
        wanted = nn.utils.get_total_norm(
            [p.grad for p in trainable.parameters.values() if p.grad is not None]
        )
        trainer.optimiser.zero_grad()
        taken = trainer.step()
    assert taken.loss == pytest.approx(loss.item(), rel=1e-5)
    assert taken.gradient_norm == pytest.approx(wanted.item(), rel=1e-4)


def test_one_size_gives_the_weights_that_plain_photos_give(model: StableDiffusion) -> None:
    photos = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain = Subject("rex", "cat", photos, "sks")
    grouped = replace(plain, groups=(PhotoGroup(photos, weights=(1.0,) * 3),))
    assert torch.equal(trained(model, plain)[0], trained(model, grouped)[0])


def test_a_photo_of_weight_zero_is_never_drawn() -> None:
    cache = LatentCache(torch.zeros(3, 1, 2, 2), weight=torch.tensor([1.0, 0.0, 0.5]))
    drawn = cache.pick(600, torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=3).tolist()
    assert counts[1] == 0 and 350 < counts[0] < 450 and cache.total == 1.5


@pytest.mark.parametrize(
    ("noun", "captions", "wish", "found"),
    [
        ("dog", [], "auto", False),
        ("soda can", [], "auto", True),
        ("books", [], "auto", True),
        ("dog", ["a dog with a name tag that says REX"], "auto", True),
        ("dog", ["a dog on a swordfish"], "auto", False),
        ("can", [], "no", False),
        ("dog", [], "yes", True),
    ],
)
def test_things_with_writing(noun: str, captions: list[str], wish: str, found: bool) -> None:
    assert has_writing(noun, captions, wish) is found


def test_subjects_with_writing_are_not_mirrored(model: StableDiffusion, folder: Path) -> None:
    settings = LearnSettings(**QUICK, flip=True)
    for writing, count in (("no", 8), ("yes", 4)):
        subject, notes = read(model, folder, buckets=False, flip=True, writing=writing)
        named = name_subjects(model, [subject], settings)
        (latents,) = encoded_photos(model, named, settings).sizes
        assert len(latents.mean) == count
        assert ("not mirrored" in notes) == (writing == "yes")


def test_class_images_of_a_folder_are_learnt_along(
    model: StableDiffusion, folder: Path, tmp_path: Path
) -> None:
    for number in range(3):
        pictures.save(tmp_path / "cats" / f"{number}.png", picture(20 + number, 60, 40))
    subject, _ = read(model, folder, tmp_path / "cats")
    assert {size: len(some) for size, some in subject.class_images.items()} == {
        group.size: 3 for group in subject.groups
    }
    *_, last = steps = list(learn_steps(model, subject, settings=LearnSettings(**QUICK)))
    assert not [step for step in steps if step.phase == "prior"], "none are drawn"
    assert last.concept is not None and last.concept.record["class_images"] == 3
    with pytest.raises(InputError, match="--class-images needs"):
        list(
            learn_steps(model, subject, settings=LearnSettings(**QUICK, method="textual-inversion"))
        )


def test_class_images_are_for_the_nouns_of_the_run(tmp_path: Path) -> None:
    rex, mia = (LearnWish(name, noun, tmp_path) for name, noun in (("rex", "dog"), ("mia", "cat")))
    found = with_class_images([rex, mia], ["dogs/", "cat=cats/"])
    assert [one.class_images for one in found] == [Path("dogs"), Path("cats")]
    with pytest.raises(InputError, match="NOUN one of dog, cat"):
        with_class_images([rex, mia], ["bear=bears"])
    with pytest.raises(InputError, match="twice for dog"):
        with_class_images([rex, mia], ["dogs", "dog=others"])


def test_crops_go_around_the_mask(model: StableDiffusion) -> None:
    mask = np.zeros((200, 300), np.float32)
    mask[80:120, 100:160] = 1
    assert crop_of(model, picture(1, 200, 300), "cat", mask) == (79, 59, 102, 82)
    mask[:] = 1
    assert crop_of(model, picture(1, 200, 300), "cat", mask) is None


@pytest.mark.parametrize(
    ("native", "downscale", "step"),
    [((512, 512), 8, 64), ((1024, 1024), 8, 64), ((128, 128), 8, 16), ((32, 32), 2, 4)],
)
def test_sizes_are_near_the_models_area_and_cut_little(
    native: tuple[int, int], downscale: int, step: int
) -> None:
    assert step_of(native, downscale) == step
    for photo in ((600, 600), (600, 800), (800, 600), (480, 800), (900, 400)):
        size = bucket_of(photo, native, step)
        assert size[0] % step == 0 == size[1] % step
        assert 0.8 * native[0] * native[1] <= size[0] * size[1] <= native[0] * native[1]
        assert cut_share(photo, size) <= min(0.14, cut_share(photo, native) + 1e-9)
    assert bucket_of(native, native, step) == native
