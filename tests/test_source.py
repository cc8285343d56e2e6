"""invert/source.py: what one run of a source leaves makes every later edit exact and cheaper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from test_swap import SCHEDULES, SOURCE, STEPS, TARGET, model_of, null_text, size_of
from understudy.diffusion.sampler import starting_noise
from understudy.invert.inversion import ddim_inversion_steps
from understudy.invert.null_text import null_text_steps
from understudy.invert.seeded import seeded_steps
from understudy.invert.source import SourceFeatures
from understudy.settings import InvertSettings
from understudy.transfer.blend import Blend
from understudy.transfer.loop import Replay, replay_steps
from understudy.transfer.schedule import first_steps
from understudy.transfer.source_target import Source, Target

OTHER = "a photo of red bear in the beach"
BLEND = Blend(2, (4,), ((4, 5),))


def run(model, inversion, schedule="paper", target=TARGET, **how):
    plan = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
    before = model.nfe
    source = Source(inversion, how.pop("features", None))
    *_, last = replay_steps(model, source, (target,), plan, **({"guidance": 4.0} | how))
    return last.target, model.nfe - before


def same(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("blend", [None, BLEND], ids=["free", "blended"])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "walked"])
def test_later_edits_run_no_source_rows(stored, blend):
    model = model_of()
    inversion = null_text(model)
    inversion = inversion if stored else replace(inversion, replay=None, first_output=None)
    features = SourceFeatures()
    plain, _ = run(model, inversion, blend=blend)
    first, _ = run(model, inversion, blend=blend, features=features)
    later, rows = run(model, inversion, blend=blend, features=features)
    assert same(plain, first) and same(plain, later)
    assert rows == 2 * STEPS - 1  # the first unconditional noise is known
    other = replace(blend, target_places=((4,),)) if blend else None
    kept, rows = run(model, inversion, target=OTHER, blend=other, features=features)
    assert same(kept, run(model, inversion, target=OTHER, blend=other)[0])
    assert rows == 2 * STEPS - 1 and features.nbytes > 0


def test_an_edit_that_needs_more_runs_the_source_where_it_must():
    model = model_of()
    inversion, features = null_text(model), SourceFeatures()
    run(model, inversion, first_steps(STEPS, 0, 0, 2), features=features)
    longer, rows = run(model, inversion, "paper", features=features)
    assert same(longer, run(model, inversion, "paper")[0])
    again, fewer = run(model, inversion, "paper", features=features)
    assert same(longer, again) and fewer == 2 * STEPS - 1 < rows


def test_null_text_inversion_leaves_them_behind_at_no_cost():
    model, schedule = model_of(), SCHEDULES["paper"]
    photo = 0.5 * starting_noise([5], size_of(model), like=model).to(model.dtype)

    def parts(index):
        swaps = schedule.at(index).parts
        return swaps | {"words"} | ({"uncond"} if "output" in swaps else set())

    how = InvertSettings(steps=STEPS, guidance=4.0, inner_steps=2)
    *_, bare = null_text_steps(model, photo, SOURCE, how)
    features, before = SourceFeatures(), model.nfe
    *_, made = null_text_steps(model, photo, SOURCE, how, features=features, parts=parts)
    assert model.nfe - before == before and torch.equal(made.latents, bare.latents)
    edited, rows = run(model, made.inversion, blend=BLEND, features=features)
    assert rows == 2 * STEPS - 1
    assert same(edited, run(model, made.inversion, blend=BLEND)[0])


def test_a_seed_is_a_source_like_a_photo():
    model, features = model_of(), SourceFeatures()
    steps = list(seeded_steps(model, SOURCE, 7, steps=STEPS, guidance=4.0))
    made = steps[-1].inversion
    unknown = replace(made, replay=None)
    target, rows = run(model, made, blend=BLEND, features=features)
    assert same(target, run(model, unknown, blend=BLEND)[0])
    *_, last = replay_steps(model, made, (SOURCE,), SCHEDULES["paper"], guidance=4.0)
    assert same(last.target, steps[-1].latents)


def test_they_are_saved_and_loaded_for_their_source_alone(tmp_path):
    model = model_of()
    inversion, features = null_text(model), SourceFeatures()
    first, _ = run(model, inversion, blend=BLEND, features=features)
    features.save(tmp_path)
    loaded = SourceFeatures.load(tmp_path, inversion, 4.0)
    later, rows = run(model, inversion, blend=BLEND, features=loaded)
    assert same(first, later) and rows == 2 * STEPS - 1
    other = replace(inversion, trajectory=inversion.trajectory * 1.01)
    assert not SourceFeatures.load(tmp_path, other, 4.0).has(0, frozenset({"output"}))
    (tmp_path / "step-0001.safetensors").write_bytes(b"torn")
    (tmp_path / "step-0002.safetensors").unlink()
    torn = SourceFeatures.load(tmp_path, inversion, 4.0)
    mended, rows = run(model, inversion, blend=BLEND, features=torn)
    assert same(first, mended) and rows > 2 * STEPS - 1


def test_they_are_forgotten_with_another_source_or_guidance():
    model = model_of()
    photo = starting_noise([1], size_of(model), like=model).to(model.dtype)
    *_, made = ddim_inversion_steps(model, photo, SOURCE, steps=STEPS)
    features = SourceFeatures()
    run(model, made.inversion, features=features)
    strong, _ = run(model, made.inversion, guidance=2.0, features=features)
    assert same(strong, run(model, made.inversion, guidance=2.0)[0])
    bare, _ = run(model, made.inversion, guidance=1.0, features=features)
    assert same(bare, run(model, made.inversion, guidance=1.0)[0])


def test_without_room_the_source_is_run_again():
    model = model_of()
    inversion, features = null_text(model), SourceFeatures(room=1_000_000)
    plain, rows = run(model, inversion, blend=BLEND)
    run(model, inversion, blend=BLEND, features=features)
    later, fewer = run(model, inversion, blend=BLEND, features=features)
    assert same(plain, later) and 2 * STEPS - 1 < fewer < rows
    assert features.nbytes <= features.room


def test_words_alone_still_fit_where_more_does_not():
    model, plan = model_of(), first_steps(STEPS, 2, 0, 2)
    inversion, whole = null_text(model), SourceFeatures()
    plain, _ = run(model, inversion, plan, blend=BLEND, features=whole)
    sizes = [sum(t.nbytes for t in step.values()) for step in whole._steps.values()]
    features = SourceFeatures(room=sizes[0] + sizes[1] - 1)
    run(model, inversion, plan, blend=BLEND, features=features)
    later, rows = run(model, inversion, plan, blend=BLEND, features=features)
    assert same(plain, later) and features.nbytes <= features.room
    kept = [features.has(index, frozenset({"words"})) for index in range(STEPS)]
    assert kept == [True, False, True, True, False, False]
    assert rows == 2 * STEPS - 1 + 2 + 2  # the source's two rows in step 1, one in the last two


def test_targets_share_rows_as_long_as_their_schedules_agree():
    model = model_of()
    inversion = null_text(model)
    plans = [SCHEDULES[name] for name in ("paper", "m", "none", "paper")]
    blend = replace(BLEND, target_places=((4, 5),) * 4)
    before = model.nfe
    how = {"guidance": 4.0, "blend": blend}
    *_, together = replay_steps(model, inversion, (TARGET,) * 4, plans, **how)
    shared = model.nfe - before
    for n, plan in enumerate(plans):
        alone, _ = run(model, inversion, plan, blend=BLEND)
        assert same(together.target[n : n + 1], alone)
    before = model.nfe
    list(replay_steps(model, inversion, (TARGET, OTHER, SOURCE, OTHER + " red"), plans, **how))
    assert shared < model.nfe - before


def test_survivors_go_on_as_if_they_had_been_alone():
    model = model_of()
    inversion = null_text(model)
    plans = [SCHEDULES[name] for name in ("paper", "m", "a")]
    blend = replace(BLEND, target_places=((4, 5),) * 3)

    targets = [Target(TARGET)] * 3
    run_ = Replay(model, Source(inversion), targets, plans, guidance=4.0, blend=blend)
    steps = []
    for index in range(STEPS):
        steps.append(run_.step(index))
        if survivors := {1: {0, 1}, 3: {1}}.get(index):
            run_.narrow(survivors)
    assert [step.targets for step in steps] == [(0, 1, 2)] * 2 + [(0, 1)] * 2 + [(1,)] * 2
    assert same(steps[-1].target, run(model, inversion, plans[1], blend=BLEND)[0])
