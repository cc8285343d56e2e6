"""Negative prompts of swaps and edits: what each row reads, and which inversions leave room."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

import test_kv_edit
from benchmarks.plain import Plain, plain_swap
from cases import few
from flow_stub import FlowStub, photo
from plain_edit import Plain as PlainWords
from plain_edit import plain_p2p
from test_prompt_to_prompt import LONGER, given
from test_swap import SCHEDULES, SOURCE, STEPS, TARGET, inverted, model_of, seeded, size_of
from tiny import tiny_folder
from tiny_flow import tiny_flow
from understudy.diffusion.sampler import starting_noise
from understudy.diffusion.text import Text
from understudy.edit import edit_steps, flow_edit_steps
from understudy.edit.prompt_to_prompt import WordMaps, prompt_to_prompt_steps
from understudy.errors import InputError, PromptError
from understudy.generate import generate_steps
from understudy.invert.direct import direct_steps
from understudy.invert.inversion import Inversion
from understudy.invert.negative_prompt import negative_prompt_steps
from understudy.invert.null_text import null_text_steps
from understudy.invert.source import SourceFeatures
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.pictures.recipe import read_recipe
from understudy.settings import EditSettings, GenerateSettings, InvertSettings, SwapSettings
from understudy.settings import edit as edit_settings
from understudy.settings import swap as swap_settings
from understudy.swap.photoswap import swap_steps
from understudy.swap.sweep import Axis, cells, sweep_steps
from understudy.transfer.loop import alignment, replay_steps
from understudy.transfer.source_target import Replacement, Source, Target

NEGATIVE = "red bear"
AVOIDING = Target(TARGET, negative=NEGATIVE)
GUIDANCE = 4.0


def plainly(inversion: Inversion, schedule, negative: str = NEGATIVE, blend=None):
    model = model_of()
    nulls = [inversion.uncond(i) for i in range(inversion.steps)]
    return plain_swap(
        model,
        inversion.noise,
        [model.embed([""]) if null is None else null for null in nulls],
        (SOURCE, TARGET),
        Plain(schedule, alignment(model, SOURCE, TARGET), 1024),
        guidance=GUIDANCE,
        times=inversion.times,
        blend=blend,
        negative=model.embed([negative]) if negative else None,
    )


def first_known(model, inversion: Inversion) -> Inversion:
    """The same, with the source's unconditional output of the first step."""
    uncond = model.predict(inversion.noise, inversion.times[0], model.embed([""]))
    return replace(inversion, first_output=uncond)


def same(steps, expected) -> None:
    for step, (source, target) in zip(steps, expected, strict=True):
        assert torch.allclose(step.target[0], target, rtol=0, atol=1e-9)
        assert step.source is None or torch.allclose(step.source[0], source, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "name, known",  # whether the source's unconditional output of the first step is kept
    few(product(SCHEDULES, (False, True)),
        [("paper", False), ("paper", True), ("phi", False), ("official", False), ("none", True),
         ("late", False)]),
)  # fmt: skip
@torch.no_grad()
def test_a_swap_reads_it_in_the_targets_rows_alone(name, known):
    model, inversion = model_of(), seeded(model_of())
    used = first_known(model, inversion) if known else inversion
    expected = plainly(inversion, SCHEDULES[name])
    same(replay_steps(model, used, AVOIDING, SCHEDULES[name], guidance=GUIDANCE), expected)
    without = plainly(inversion, SCHEDULES[name], negative="")
    apart = [(a[1] - b[1]).abs().max() for a, b in zip(expected, without, strict=True)]
    assert min(apart[:-1]) > 1e-4  # the negative prompt has an effect
    assert all(torch.equal(a[0], b[0]) for a, b in zip(expected, without, strict=True))


def test_kept_features_of_the_source_serve_every_negative_prompt():
    model, inversion, schedule = model_of(), seeded(model_of()), SCHEDULES["paper"]
    features = SourceFeatures()
    for negative in ("", NEGATIVE, "a dog"):
        target = Target(TARGET, negative=negative)
        source = Source(inversion, features)
        steps = list(replay_steps(model, source, target, schedule, guidance=GUIDANCE))
        expected = plainly(inversion, schedule, negative)
        assert torch.allclose(steps[-1].target[0], expected[-1][1], rtol=0, atol=1e-9)


def test_targets_share_the_negative_row_and_are_what_they_are_alone():
    model, inversion, schedule = model_of(), seeded(model_of()), SCHEDULES["paper"]
    other = Target("a photo of red bear in the beach", negative=NEGATIVE)
    both = list(replay_steps(model, inversion, [AVOIDING, other], schedule, guidance=GUIDANCE))
    for n, target in enumerate((AVOIDING, other)):
        *_, alone = replay_steps(model, inversion, target, schedule, guidance=GUIDANCE)
        assert torch.allclose(both[-1].target[n], alone.target[0], rtol=0, atol=1e-9)
    assert both[0].nfe == 5  # two of the source, one unconditional and two conditional
    with pytest.raises(InputError, match="one negative prompt"):
        list(replay_steps(model, inversion, [AVOIDING, TARGET], schedule, guidance=GUIDANCE))


@pytest.mark.parametrize("kind", ["refine", "auto"])
def test_prompt_to_prompt_is_the_plain_one(kind):
    model, inversion = model_of(), seeded(model_of(), steps=3)
    columns, edits, windows = given(model, (LONGER,), kind)
    windows = windows[: 3 + 1]
    steps = prompt_to_prompt_steps(
        model, inversion, Target(LONGER, negative=NEGATIVE), WordMaps(columns, windows),
        range(1, 2), guidance=GUIDANCE, map_tokens=64,
    )  # fmt: skip
    other = model_of()
    expected, _ = plain_p2p(
        other,
        inversion.noise,
        [other.embed([""])] * 3,
        Text.cat([other.embed([prompt]) for prompt in (SOURCE, LONGER)]),
        PlainWords(edits, windows, range(1, 2), 64),
        guidance=GUIDANCE,
        times=inversion.times,
        negative=other.embed([NEGATIVE]),
    )
    for step, plain in zip(list(steps), expected, strict=True):
        assert torch.allclose(step.target, plain[1:], rtol=0, atol=1e-9)


def avoided(model, inner_steps: int, negative: str = NEGATIVE) -> Inversion:
    picture = 0.5 * starting_noise([5], size_of(model), like=model).to(model.dtype)
    how = InvertSettings(steps=STEPS, guidance=GUIDANCE, inner_steps=inner_steps, negative=negative)
    *_, last = null_text_steps(model, picture, SOURCE, how)
    return last.inversion


def test_null_text_inversion_is_tuned_from_it_and_still_gives_the_photo_back(tmp_path):
    model = model_of()
    untuned = avoided(model, 0)
    assert untuned.null_embeddings.equals(Text.cat([model.embed([NEGATIVE])] * STEPS))
    tuned = avoided(model, 10)
    misses = [(one.replay[-1:] - one.clean).abs().max().item() for one in (untuned, tuned)]
    assert misses[1] < misses[0]
    # The source prompt as target gives the source, whatever is avoided.
    target = Target(SOURCE, negative=NEGATIVE)
    *_, last = replay_steps(model, tuned, target, SCHEDULES["paper"], guidance=GUIDANCE)
    assert torch.allclose(last.target, tuned.replay[-1:], rtol=0, atol=1e-9)
    assert not tuned.null_embeddings.equals(avoided(model, 10, "").null_embeddings)
    kept = Inversion.load(tuned.save(tmp_path / "one.inversion.safetensors"))
    assert (kept.negative, kept.method) == (NEGATIVE, "null-text")


def test_what_leaves_no_room_is_refused_in_one_line():
    model, settings = model_of(), SwapSettings.filled({"preset": "paper"})
    settings = replace(settings, steps=STEPS, guidance=GUIDANCE, negative=NEGATIVE)
    tuned = inverted(model, 16, STEPS, GUIDANCE)
    with pytest.raises(InputError, match=r"inverted for --negative '', .* --negative 'red bear'"):
        list(swap_steps(model, tuned, TARGET, settings))
    with pytest.raises(InputError, match="inverted for --negative 'red bear'"):
        list(swap_steps(model, avoided(model, 0), TARGET, replace(settings, negative="")))
    *_, made = negative_prompt_steps(model, tuned.trajectory[:1], SOURCE, steps=STEPS)
    with pytest.raises(InputError, match="uses the photo's prompt as negative prompt"):
        list(swap_steps(model, made.inversion, TARGET, settings))
    given = {"steps": STEPS, "guidance": GUIDANCE, "negative": NEGATIVE, "inversion_steps": 0}
    for method in ("p2p", "pnp"):
        with pytest.raises(InputError, match="uses the photo's prompt as negative prompt"):
            list(edit_steps(model, made.inversion, TARGET, EditSettings.filled(
                {"method": method, **given})))  # fmt: skip
    unguided = replace(settings, guidance=1.0)
    with pytest.raises(InputError, match="--negative changes nothing with --guidance 1"):
        list(swap_steps(model, seeded(model, guidance=1.0), TARGET, unguided))
    with pytest.raises(InputError, match="--negative changes nothing with --guidance 1"):
        generate_steps(model, [TARGET], [0], GenerateSettings(guidance=1.0, negative=NEGATIVE))
    with pytest.raises(PromptError, match="75"):
        list(swap_steps(model, seeded(model), TARGET, replace(settings, negative="cat " * 80)))


@pytest.mark.parametrize("method", ["p2p", "pnp", "hiper"])
def test_every_method_of_edits_reads_it(method):
    model = model_of()
    *_, made = direct_steps(model, 0.5 * seeded(model).noise, SOURCE, steps=2)
    how = {"method": method, "steps": 2, "guidance": GUIDANCE, "inversion_steps": 0}
    ends = {
        negative: list(
            edit_steps(
                model, made.inversion, TARGET, EditSettings.filled({**how, "negative": negative})
            )
        )[-1].target
        for negative in ("", NEGATIVE)
    }
    assert (ends[""] - ends[NEGATIVE]).abs().max() > 1e-3
    if method != "pnp":  # whose guided step is the same with another embedding
        stated = EditSettings.filled({**how, "negative": NEGATIVE})
        *_, same = edit_steps(model, made.inversion, Target(TARGET, negative=NEGATIVE), stated)
        assert torch.equal(same.target, ends[NEGATIVE])


def test_refining_and_sweeps_read_it_too():
    model = model_of()
    *_, made = direct_steps(model, 0.5 * seeded(model).noise, SOURCE, steps=STEPS)
    mask = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    target = Target(TARGET, (Replacement("cat", "sks dog"),), mask)
    settings = SwapSettings.filled({"steps": STEPS, "guidance": GUIDANCE, "where": "attention"})
    settings = replace(settings, budget=0, refine_steps=STEPS, negative=NEGATIVE)
    # All steps are repeated: of the swap itself nothing is left but the noise of this stage.
    ends = [
        list(swap_steps(model, made.inversion, target, replace(settings, negative=negative)))
        for negative in ("", NEGATIVE)
    ]
    assert (ends[0][-1].target - ends[1][-1].target).abs().max() > 1e-3
    once = replace(settings, refine_steps=0, eta=0.0)
    grid = cells(once, None, Axis("cross_map_steps", (0, 2)))
    *_, swept = sweep_steps(model, made.inversion, target, grid)
    for n, cell in enumerate(grid):
        *_, alone = swap_steps(model, made.inversion, target, cell.settings)
        assert torch.allclose(swept.target[n], alone.target[0], rtol=0, atol=1e-9)


def test_flowedit_is_guided_away_from_it_on_both_sides_as_in_its_authors_code():
    model, latents = FlowStub(), FlowStub().encode(photo())
    settings = EditSettings.filled({"method": "flowedit", "steps": 10, "negative": "a fog"})
    steps = list(flow_edit_steps(model, latents, "a cat", "a red dog", settings))
    stream, z = torch.Generator().manual_seed(0), latents.clone()
    sigmas = model.schedule.times(10)

    def guided(x, sigma, prompt, scale):
        away, text = (model.predict(x, sigma, model.embed([one])) for one in ("a fog", prompt))
        return away + scale * (text - away)

    for i in range(10 - settings.n_max, 10):
        sigma = sigmas[i]
        noise = torch.randn(latents.shape, generator=stream).double()
        q = (1 - sigma) * latents + sigma * noise
        change = guided(q + z - latents, sigma, "a red dog", 13.5)
        z = z + (sigmas[i + 1] - sigma) * (change - guided(q, sigma, "a cat", 3.5))
    assert torch.allclose(steps[-1].target, z, rtol=0, atol=1e-9)
    refused = EditSettings.filled({"method": "flowalign", "steps": 10, "negative": "a fog"})
    with pytest.raises(InputError, match="flowalign is guided from the source prompt"):
        list(flow_edit_steps(model, latents, "a cat", "a red dog", refused))


@pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
@torch.no_grad()
def test_kv_edit_reads_it_in_the_regions_rows_alone():
    model = tiny_flow("sd35", dtype=torch.float64)
    found = test_kv_edit.inverted(model)
    everywhere = torch.ones(1, 1, *test_kv_edit.SIZE)  # no background: rows are read alone
    (step,) = test_kv_edit.edited(model, found, mask=everywhere, n_max=1, negative="a bear")
    now, (start, end) = found.path[-2:-1], found.times[-2:]

    def guided(prompt: str, away: str):
        cond, uncond = (model.predict(now, start, model.embed([one])) for one in (prompt, away))
        return uncond + 3.0 * (cond - uncond)

    ours, theirs = guided(test_kv_edit.TARGET, "a bear"), guided(test_kv_edit.SOURCE, "")
    wanted = found.path[-1:] + (end - start) * (ours - theirs)
    assert torch.allclose(step.target, wanted, rtol=0, atol=1e-9)
    assert (guided(test_kv_edit.TARGET, "") - ours).abs().max() > 1e-4


def test_the_inversion_of_an_edit_has_its_negative_prompt():
    swapping = SwapSettings.filled({"preset": "paper", "negative": NEGATIVE})
    assert swap_settings.inversion_for(swapping, "").negative == NEGATIVE
    assert swap_settings.inversion_for(swapping, "", "direct").negative == ""
    editing = EditSettings.filled({"negative": NEGATIVE})
    assert edit_settings.inversion_for(editing, "", "null-text").negative == NEGATIVE
    # Without guidance plug-and-play's list of flaws changes nothing, so it is left out.
    assert EditSettings.filled({"method": "pnp", "guidance": 1.0}).negative == ""


@pytest.fixture
def photo_file(tmp_path):
    from PIL import Image

    file = tmp_path / "photo.png"
    noise = torch.randint(0, 255, (64, 64, 3), generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.to(torch.uint8).numpy()).save(file)
    return file


def test_a_job_reads_it_and_keeps_it_in_the_recipe(photo_file, tmp_path):
    def job(negative: str, out: str, method: str = "direct") -> Job:
        settings = {
            "run": {"model": str(tiny_folder("toy")), "device": "cpu"},
            "edit": {"steps": 2, "guidance": GUIDANCE, "negative": negative},
            "invert": {"steps": 2, "method": method, "guidance": GUIDANCE},
        }
        inputs = {"photo": str(photo_file), "prompt": "a cat", "to": ["a dog"],
                  "out": str(tmp_path / out)}  # fmt: skip
        return Job(verb="edit", settings=settings, inputs=inputs)

    for negative, out in (("", "plain.png"), (NEGATIVE, "avoided.png")):
        list(run(job(negative, out)))
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "avoided.png").read_bytes()
    recipe = read_recipe(tmp_path / "avoided.png")
    assert recipe.settings["negative"] == NEGATIVE
    with pytest.raises(InputError, match="inverted for --negative ''"):
        list(run(job(NEGATIVE, "none.png", "null-text")))
    with pytest.raises(PromptError, match="--negative cannot name a concept"):
        list(run(job("a {rex}", "none.png")))
    told = {"run": {"model": str(tiny_folder("toy"))},
            "invert": {"method": "ddim", "steps": 2, "negative": NEGATIVE}}  # fmt: skip
    inputs = {"photo": str(photo_file), "prompt": "a cat", "out": str(tmp_path / "i.safetensors")}
    with pytest.raises(InputError, match="--negative goes with --method null-text"):
        list(run(Job(verb="invert", settings=told, inputs=inputs)))
