"""edit/prompt_to_prompt.py: the recorded edits, and the plain method on tiny models."""

from __future__ import annotations

import pytest
import torch

from golden_edits import Recorded, compare
from golden_model import GoldenCase, golden_cases, rows_per_step
from plain_edit import Plain, plain_p2p, refining, replacing, weighing
from test_swap import SOURCE, STEPS, model_of, null_text, seeded
from understudy.attention.plan import CrossMix
from understudy.diffusion.text import Text
from understudy.diffusion.words import align, replace_matrix
from understudy.edit.columns import columns_of, refined
from understudy.edit.prompt_to_prompt import WordMaps, prompt_to_prompt_steps
from understudy.edit.windows import word_windows
from understudy.models.unet.denoiser import install
from understudy.transfer.blend import Blend
from understudy.transfer.cross_maps import alignment

ROUNDED = 1e-6  # of arrays stored as float32


def side(case: GoldenCase) -> int:
    return case.array(f"/{case.settings['source']}/x_T").shape[-1]


def quick(case: GoldenCase) -> bool:
    return case.settings["steps"] <= 20 and side(case) <= 32


def fast(case: GoldenCase) -> None:
    given = Recorded(case, case.model())
    inversion = given.inversion()
    before = given.model.nfe
    steps = given.run(inversion)
    rows = given.model.nfe - before
    plain = rows_per_step(case.settings["guidance"]) * (1 + len(given.targets)) * given.steps
    assert rows == sum(step.nfe for step in steps) < plain
    check(case, compare(case, [step.target for step in steps], steps[-1].mask), rows)


def check(case: GoldenCase, errors: dict[str, float], rows: int) -> None:
    largest = max(errors, key=lambda key: errors[key])
    print(case.name, largest, errors[largest], rows)
    assert max(errors.values()) < ROUNDED


@golden_cases("d_p2p", where=quick)
def test_golden_edit_of_a_few_steps(case: GoldenCase) -> None:
    fast(case)


@pytest.mark.slow
@golden_cases("d_p2p", where=lambda case: not quick(case))
def test_golden_edit(case: GoldenCase) -> None:
    fast(case)


@pytest.mark.slow
@golden_cases("d_p2p")
def test_golden_edit_by_the_plain_method(case: GoldenCase) -> None:
    want, given = case.settings, Recorded(case, case.model())
    edits = []
    for n in range(len(given.targets)):
        aligned = given.aligned(n)
        plain = (
            replacing(given.matrix(n))
            if given.kind == "replace"
            else refining(aligned.mapper, aligned.alphas)
        )
        edits.append(weighing(plain, given.weights(n)))
    plain = Plain(edits, given.windows(), given.self_steps, given.map_tokens)
    before = given.model.nfe
    try:
        walked, mask = plain_p2p(
            given.model,
            case.array(f"/{want['source']}/x_T")[None],
            [case.empty] * given.steps,
            given.model.embed(given.prompts),
            plain,
            guidance=want["guidance"],
            times=given.inversion().times,
            blend=given.blend(),
        )
    finally:
        install(given.model.unet)
    latents = [latents[1:] for latents in walked]
    check(
        case, compare(case, latents, None if mask is None else mask[1:]), given.model.nfe - before
    )


# --- The plain method on tiny models ------------------------------------------------------------

LONGER = "a photo of red dog sitting on the beach"
SWAPPED = "a photo of dog on the floor"
KINDS = {"refine": (LONGER,), "replace": (SWAPPED,), "auto": (SWAPPED, LONGER)}


def given(model, targets, how, *, own=(), weights=None):
    weights = weights or {}
    aligned = [alignment(model, SOURCE, target) for target in targets]
    pairs = zip(targets, aligned, strict=True)
    columns = [columns_of(model, SOURCE, t, a, how=how, weights=weights, own=own) for t, a in pairs]
    edits = []
    for target, found in zip(targets, aligned, strict=True):
        same = len(target.split()) == len(SOURCE.split())
        strings = [model.tokenize(prompt).strings for prompt in (SOURCE, target)]
        edit = (
            replacing(replace_matrix(SOURCE, target, *strings, model.max_tokens))
            if how == "replace" or (how == "auto" and same)
            else refining(found.mapper, found.alphas)
        )
        edits.append(weighing(edit, weights))
    strings = [model.tokenize(target).strings for target in targets]
    table = {"default_": (0.2, 0.8), targets[0].split()[3]: 0.5}
    return columns, edits, word_windows(targets, strings, STEPS, table, model.max_tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["null-text", "seed"])
def test_every_kind_is_the_plain_one(kind, source):
    model, targets = model_of(), KINDS[kind]
    inversion = null_text(model, steps=3) if source == "null-text" else seeded(model, steps=3)
    weights = {4: 2.0, 6: -0.5}
    columns, edits, windows = given(model, targets, kind, weights=weights)
    windows = windows[: 3 + 1]
    blend = Blend(1, (4,), ((4,),) * len(targets), 0.7, None, ((6,),) * (1 + len(targets)), 0.9)
    steps = prompt_to_prompt_steps(
        model, inversion, targets, WordMaps(columns, windows), range(1, 2), guidance=4.0,
        map_tokens=64, blend=blend,
    )  # fmt: skip
    ours = [(step.target, step.mask) for step in steps]
    other = model_of()
    nulls = [inversion.uncond(i) for i in range(3)]
    expected, mask = plain_p2p(
        other,
        inversion.noise,
        [other.embed([""]) if null is None else null for null in nulls],
        Text.cat([other.embed([prompt]) for prompt in (SOURCE, *targets)]),
        Plain(edits, windows, range(1, 2), 64),
        guidance=4.0,
        times=inversion.times,
        blend=blend,
    )
    for (target, _), plain in zip(ours, expected, strict=True):
        assert torch.allclose(target, plain[1:], rtol=0, atol=1e-9)
    assert 0 < mask[1:].double().mean() < 1
    assert torch.equal(ours[-1][1].bool(), mask[1:])


def test_a_window_of_nothing_passes_nothing():
    model = model_of()
    columns, _, windows = given(model, (LONGER,), "refine")
    assert WordMaps(columns, torch.zeros_like(windows)).at(model)(0) == [None]
    full = WordMaps([columns_of(
        model, SOURCE, SWAPPED, alignment(model, SOURCE, SWAPPED), how="auto", weights={}
    )], torch.ones_like(windows)).at(model)(0)[0]  # fmt: skip
    assert isinstance(full, CrossMix) and full.own is None  # one attention, not two


def test_a_learnt_tail_keeps_its_own_map_however_words_pass():
    model = model_of()
    tail = range(70, 77)
    for how in ("refine", "auto"):
        found = columns_of(
            model, SOURCE, SWAPPED, alignment(model, SOURCE, SWAPPED), how=how,
            weights={71: 3.0}, own=tail,
        )  # fmt: skip
        assert not found.shared[:, list(tail)].any() and bool((found.own[list(tail)] == 1).all())


def test_columns_of_refinement_are_what_a_cross_mix_of_the_alignment_is():
    aligned = align([0, 5, 6, 9], [0, 5, 7, 6, 9], 8)
    mix, ours = CrossMix.aligned(0, aligned.mapper, aligned.alphas), refined(aligned)
    assert torch.equal(mix.shared.double(), ours.shared)
    assert torch.equal(mix.own.double(), ours.own)
