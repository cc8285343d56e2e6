"""attention/tokens.py, transfer/appearance.py, swap/appearance.py: looks read from pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.plain import TARGET_C, TARGET_U, Plain, PlainProcessor
from plain_refining import refined_plainly
from test_refine import MASK, SETTINGS, STEPS, WANTED
from test_swap import SOURCE, TARGET, model_of, null_text
from tiny_flow import tiny_flow
from understudy.attention.attend import attend
from understudy.attention.plan import AttentionPlan
from understudy.attention.projections import Projections
from understudy.attention.site import AttentionSite
from understudy.attention.tokens import TokensOf
from understudy.diffusion.sampler import starting_noise
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.jobs import swap as jobs_swap
from understudy.jobs.events import completed
from understudy.jobs.source import InputPicture, Inverted
from understudy.jobs.subjects import SwapSubjects
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap import appearance as pictures_of
from understudy.swap import blending, refine
from understudy.swap.limits import OTHER, SAME
from understudy.swap.photoswap import swap_steps
from understudy.swap.refine import appearance_count, held_count
from understudy.transfer.appearance import COVERED, MOST, SHOWN, Appearance
from understudy.transfer.loop import alignment
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Replacement, Source

AGAIN_STEPS, READ = 4, 2  # steps of refining, and those of them that read pictures


def test_tokens_read_the_background_of_their_row_and_the_subject_of_others() -> None:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(4, 6, 8, dtype=torch.float64, generator=draws)
    query, key, value, out = (
        torch.randn(8, 8, dtype=torch.float64, generator=draws) for _ in range(4)
    )
    layer = Projections(*(lambda x, w=w: x @ w for w in (query, key, value, out)), 2, 0.5)
    site = AttentionSite("down", "self", 0, "down", grid=(2, 3))
    inside, outside, seen = (torch.tensor(places) for places in ([1, 4], [0, 2, 3, 5], [0, 5, 8]))
    plain = attend(features, features, layer, site)
    plan = AttentionPlan(tokens=TokensOf((0, 2), inside, outside, (1, 3), seen))
    found = attend(features, features, layer, site, plan)
    for row in range(4):
        for token in range(6):
            if row not in (0, 2) or token not in (1, 4):
                assert torch.equal(found[row, token], plain[row, token])
                continue
            # Token 8 of the two rows that are read is token 2 of row 3.
            context = torch.cat(
                [features[row, [0, 2, 3, 5]], features[1, [0, 5]], features[3, [2]]]
            )
            heads: list[torch.Tensor] = []
            for part in (slice(0, 4), slice(4, 8)):
                logits = (features[row, token] @ query[:, part]) @ (context @ key[:, part]).mT
                heads.append((0.5 * logits).softmax(-1) @ (context @ value[:, part]))
            assert torch.allclose(found[row, token], torch.cat(heads) @ out, rtol=0, atol=1e-12)


class Reader(PlainProcessor):
    """As the plain way, and tokens read the pictures' subject: maps made whole, token by token."""

    inside = seen = torch.zeros(0)
    begin = STEPS - AGAIN_STEPS  # the first of the steps that read

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        out = super().__call__(attn, hidden_states, encoder_hidden_states)
        x, begin = hidden_states, self.begin
        finest = x.shape[1] == 256 and encoder_hidden_states is None
        if not finest or self.plain.step not in range(begin, begin + READ):
            return out
        shown = torch.cat([one[where] for one, where in zip(x[4:], self.seen, strict=True)])
        for row in (TARGET_U, TARGET_C):
            context = torch.cat([x[row][~self.inside], shown])
            q, k, v = (
                part.unflatten(-1, (attn.heads, -1)).transpose(0, 1)
                for part in (attn.to_q(x[row]), attn.to_k(context), attn.to_v(context))
            )
            mixed = (q @ k.mT * attn.scale).softmax(-1) @ v
            mine = attn.to_out[0](mixed.transpose(0, 1).flatten(1))
            out[row] = torch.where(self.inside[:, None], mine, out[row])
        return out


def shown_in(model: DiffusionModel) -> Appearance:
    """Two pictures, and a subject in each."""
    latents = starting_noise([8, 9], (4, 16, 16), like=model)
    masks = torch.zeros(2, 1, 32, 32, dtype=torch.float64)
    masks[0, :, 4:20, 8:16] = masks[1, :, 10:28, 10:30] = 1
    return Appearance(latents, masks, "a photo of a sks dog")


SUBJECT = F.interpolate(MASK, scale_factor=2)


def plainly(
    model: DiffusionModel, inversion: Inversion, settings: SwapSettings, share: float
) -> torch.Tensor:
    """Refining from the photo with pictures read, written out: every row, all maps whole."""
    shown, begin, clean = shown_in(model), STEPS - AGAIN_STEPS, inversion.clean
    held = range(begin, begin + held_count(settings, share))
    plain = Plain(
        SwapSchedule(STEPS, range(0), range(0), held), alignment(model, SOURCE, TARGET), 1024
    )
    Reader.inside = F.adaptive_avg_pool2d(SUBJECT, (16, 16)).flatten() > COVERED
    Reader.seen = F.adaptive_avg_pool2d(shown.masks, (16, 16)).flatten(1) > SHOWN
    for name, module in model.unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(Reader(plain, name))
    still = starting_noise([settings.noise_seed] * 2, (4, 16, 16), like=model)
    pictures = (shown.latents, still, shown.prompt)
    return refined_plainly(model, plain, clean, inversion, MASK, settings, pictures)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_refining_from_the_photo_equals_the_plain_loop(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: replace(SAME, held=share))
    model = model_of()
    inversion = null_text(model, steps=STEPS)
    settings = replace(SETTINGS, refine_steps=AGAIN_STEPS, appearance_steps=READ)
    source = Source(inversion, subject=SUBJECT)
    with torch.no_grad():
        wanted = plainly(model_of(), inversion, settings, share)
    *_, last = swap_steps(model, source, WANTED, settings, appearance=shown_in(model))
    *_, without = swap_steps(model, source, WANTED, settings)
    assert last.mask is not None and torch.equal(last.mask, without.mask)
    # The blend finds its own mask by the words; compare where it allows a change in both.
    inside = (last.mask * MASK > 0).expand_as(wanted)
    assert torch.equal(last.mask * MASK, MASK), "the mask that was given"
    assert torch.allclose(last.target[inside], wanted[inside], rtol=0, atol=1e-9)
    assert float((last.target - without.target).abs().max()) > 0.1


@pytest.mark.parametrize("posed", [True, False])
def test_a_subject_of_the_same_class_begins_with_the_photo(
    monkeypatch: pytest.MonkeyPatch, posed: bool
) -> None:
    limits = replace(SAME if posed else OTHER, held=0.0)
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: limits)
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    settings = replace(SETTINGS, refine_steps=AGAIN_STEPS, appearance_steps=READ)
    none = replace(settings, appearance_steps=0)
    shown, begun = shown_in(model), list[torch.Tensor]()
    begin_at = refine.Replay.begin_at
    monkeypatch.setattr(
        refine.Replay,
        "begin_at",
        lambda run, index, latents, *given: (
            begun.append(latents),
            begin_at(run, index, latents, *given),
        )[1],
    )
    steps = list(swap_steps(model, source, WANTED, settings, appearance=shown))
    plain = list(swap_steps(model, source, WANTED, none, appearance=shown))
    assert torch.equal(*begun) is not posed, "from the photo, or from the swapped picture"
    assert not torch.equal(steps[-1].target, plain[-1].target), "pictures are read in any case"
    extra = [one.nfe - other.nfe for one, other in zip(steps, plain, strict=True)]
    assert extra == [0] * STEPS + [len(shown.latents)] * READ + [0] * (AGAIN_STEPS - READ)


def test_a_row_begins_with_the_latents_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    settings = replace(SETTINGS, refine_steps=AGAIN_STEPS, appearance_steps=READ)
    *_, swapped = swap_steps(model, source, WANTED, replace(settings, refine_steps=0))
    clean = source.inversion.clean
    assert clean is not None
    other = clean.clone()
    other[..., 1:3, 4:8] += 1
    begun = list[torch.Tensor]()
    monkeypatch.setattr(
        refine.Replay, "begin_at", lambda run, index, latents, *_: begun.append(latents)
    )
    monkeypatch.setattr(refine.Replay, "step", lambda run, index: swapped)
    for posed in (clean, other):
        next(
            refine.refined_steps(
                model, source, swapped, [WANTED], settings, appearance=shown_in(model), posed=posed
            )
        )
    changed = (begun[0] != begun[1]).any(1)[0]
    assert changed[1:3, 4:8].all() and changed.sum() == 2 * 4


def test_without_steps_to_read_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: SAME)
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    settings = replace(SETTINGS, refine_steps=AGAIN_STEPS, appearance_steps=0)
    *_, last = swap_steps(model, source, WANTED, settings, appearance=shown_in(model))
    *_, without = swap_steps(model, source, WANTED, settings)
    assert torch.equal(last.target, without.target) and last.nfe == without.nfe


def test_how_many_steps_read_pictures() -> None:
    assert appearance_count(replace(SETTINGS, refine_steps=4, appearance_steps=0.5)) == 3
    assert appearance_count(replace(SETTINGS, refine_steps=2, appearance_steps=5)) == 2
    assert SwapSettings.filled({"preset": "paper"}, "toybox").appearance_steps == 0
    assert SwapSettings.filled({"blend": False}, "toybox").appearance_steps == 0
    assert SwapSettings.filled({}, "toybox").appearance_steps > 0


def test_pictures_without_the_subject_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    pictures = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    asked: list[float] = []

    def found(model, picture, prompt, words):
        assert prompt == "a photo of a sks dog" and words == ["sks dog"]
        asked.append(float(picture.mean()))
        return None if len(asked) == 2 else torch.ones(1, 1, 32, 32)

    monkeypatch.setattr(pictures_of, "found_by_words", found)
    shown = pictures_of.appearance_of(model, pictures.double(), "sks dog")
    assert shown is not None and len(asked) == MOST
    kept = pictures[[0, 2, 3]].double()
    with torch.no_grad():
        assert torch.allclose(shown.latents, torch.cat([model.encode(p) for p in kept.split(1)]))
    monkeypatch.setattr(pictures_of, "found_by_words", lambda *given: None)
    assert pictures_of.appearance_of(model, pictures.double(), "sks dog") is None


def test_several_subjects_of_one_word_do_not_read_the_pictures_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_swap, "appearance_of", lambda *given: pytest.fail("read"))
    monkeypatch.setattr(jobs_swap, "drawn_of", lambda *given: pytest.fail("drawn"))
    model = model_of()
    two = tuple(Replacement("cat", phrase, number) for number, phrase in enumerate(("a", "b")))
    subjects = SwapSubjects(two, (), "a photo of a and b")
    source = InputPicture("a photo of cat and cat", torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    settings = replace(SETTINGS, refine_steps=4, appearance_steps=2, blend=False)
    monkeypatch.setattr(jobs_swap, "swap_steps", lambda *given, **told: pytest.fail(str(told)))
    with pytest.raises(pytest.fail.Exception, match="'appearance': None"):
        completed(
            jobs_swap.replaced(
                model, Inverted(null_text(model, steps=STEPS)), source, subjects, settings
            )
        )


def test_a_flow_model_refuses_to_read_pictures() -> None:
    settings = SwapSettings.filled({"appearance_steps": 4})
    with pytest.raises(InputError, match="--appearance-steps is for Stable Diffusion"):
        pictures_of.check_appearance(tiny_flow("sd3"), settings)
    pictures_of.check_appearance(tiny_flow("sd3"), SwapSettings.filled({}))
