"""Photoswap and prompt-to-prompt in joint attention, against maps materialised in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cases import few
from tiny import WORDS
from tiny_flow import tiny_flow
from understudy.attention.plan import CrossMix, LogitMix
from understudy.attention.site import AttentionSite
from understudy.diffusion.words import word_places
from understudy.edit import WordEdits, edit_steps
from understudy.invert import invert
from understudy.models.transformer import processors
from understudy.settings import EditSettings, InvertSettings, SwapSettings
from understudy.swap import swap_steps
from understudy.swap.photoswap import schedule_of
from understudy.transfer.blend import Blend
from understudy.transfer.loop import replay_steps
from understudy.transfer.readings import alignment, readings, replacement
from understudy.transfer.schedule import SwapSchedule, first_steps
from understudy.transfer.source_target import Replacement, Target

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
SOURCE, TARGET = "a photo of a cat on the beach", "a photo of a red dog on the beach"
STEPS, SIZE = 4, (48, 32)  # not square; 96 or fewer image tokens, 101 text tokens


@pytest.fixture(scope="module")
def model():
    return tiny_flow("sd35", dtype=torch.float64)


@pytest.fixture(scope="module")
def direct(model):
    drawn = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return invert(model, drawn, SOURCE, InvertSettings.filled({"method": "direct", "steps": STEPS}))


def apart(a, b) -> float:
    return (a - b).abs().max().item()


def all_steps(**on: bool) -> SwapSchedule:
    ends = (STEPS * on.get(name, False) for name in ("phi", "m", "a"))
    return SwapSchedule(STEPS, *map(range, ends))


# What the swaps do, with every map materialised.


class Materialised:
    """The joint attention of source and target by definition: rows of a call as `lay_out` puts
    them without guidance, the source first."""

    def __init__(self, swap: str, mapper, weights, factors, monkeypatch) -> None:
        self.swap, self.calls = swap, 0
        self.mapper, self.weights, self.factors = mapper, weights, factors

        plainly = processors.attend_joint

        def joint(given, site, plan):
            if site.kind == "self":  # SD3.5's second attention, Z-Image's refiners
                return plainly(given, site, plan)
            return self.attention(site, given.query, given.key, given.value, given.mask)

        monkeypatch.setattr(processors, "attend_joint", joint)

    def attention(self, site: AttentionSite, q, k, v, mask):
        self.calls += 1
        d, image, text = q.shape[-1], site.image, site.text
        logits = q @ k.mT / d**0.5
        hidden = torch.zeros(logits.shape[::3], dtype=torch.bool) if mask is None else ~mask
        out = logits.masked_fill(hidden[:, None, None], float("-inf")).softmax(-1) @ v
        s, t = 0, 1
        mixed, values = logits[t].clone(), v[t].clone()
        if self.swap in ("m", "phi"):
            mixed[:, image, image] = logits[s][:, image, image]
        if self.swap == "phi":
            values[:, image] = v[s][:, image]
        if self.swap == "a":
            theirs = logits[s][:, image, text][..., self.mapper.clamp(min=0)]
            own = logits[t][:, image, text]
            mixed[:, image, text] = self.weights * theirs + (1 - self.weights) * own + self.factors
        swapped = mixed.masked_fill(hidden[t], float("-inf")).softmax(-1) @ values
        out[t, :, image] = swapped[:, image]
        return out


FAMILIES = ("flux", "chroma", "qwen", "zimage", "klein")


@pytest.mark.parametrize("kind", few(FAMILIES, ["flux", "qwen", "zimage"]))
def test_every_family_swaps_as_materialised_and_returns_the_photo(kind: str, monkeypatch) -> None:
    """M, A and phi at once in text-first, image-first, masked and single-stream layers."""
    model = tiny_flow(kind, dtype=torch.float64)
    drawn = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = InvertSettings.filled({"method": "direct", "steps": 2})
    found = invert(model, drawn, SOURCE, settings)
    for on in ({"m": True, "a": True}, {"phi": True, "a": True}):
        schedule = SwapSchedule(2, *(range(2 * on.get(name, False)) for name in ("phi", "m", "a")))
        for scale in (1.0, 3.0):
            *_, last = replay_steps(model, found, [SOURCE], schedule, guidance=scale)
            assert found.clean is not None and apart(last.target, found.clean) < 1e-9
    length = len(model.embed([TARGET]).tokens[0])
    pairs = alignment(model, SOURCE, TARGET)
    for swap in ("m", "a", "phi"):
        schedule = SwapSchedule(2, *(range(2 * (name == swap)) for name in ("phi", "m", "a")))
        *_, ours = replay_steps(model, found, [TARGET], schedule, guidance=1.0)
        with monkeypatch.context() as patch:
            known = torch.tensor(pairs.alphas, dtype=torch.float64)[:length]
            Materialised(swap, torch.tensor(pairs.mapper)[:length], known, 0.0, patch)
            *_, wanted = replay_steps(model, found, [TARGET], schedule, guidance=1.0)
        assert apart(ours.target, wanted.target) < 1e-12, swap


@pytest.mark.parametrize("swap", ["m", "a", "phi"])
def test_a_swap_is_the_materialised_one(swap: str, model, direct, monkeypatch) -> None:
    """All joint layers and steps; SD3.5's second attention is that of a U-Net."""
    found = alignment(model, SOURCE, TARGET)
    known = torch.tensor(found.alphas, dtype=torch.float64)
    steps = list(replay_steps(model, direct, [TARGET], all_steps(**{swap: True}), guidance=1.0))
    plain = list(replay_steps(model, direct, [TARGET], all_steps(), guidance=1.0))
    with monkeypatch.context() as patch:
        by_maps = Materialised(swap, torch.tensor(found.mapper), known, 0.0, patch)
        # The loop still says what attn2 does; only joint layers are computed anew.
        again = list(replay_steps(model, direct, [TARGET], all_steps(**{swap: True}), guidance=1.0))
    assert by_maps.calls == 3 * STEPS
    for step, wanted in zip(steps, again, strict=True):
        assert apart(step.target, wanted.target) < 1e-12
    assert apart(steps[-1].target, plain[-1].target) > 1e-4


def test_words_of_unequal_length_share_their_attention(model) -> None:
    """One word for two tokens and the other way: the factors are the shares."""
    shared = torch.zeros(5, 5)
    shared[0, 0] = shared[4, 4] = 1
    shared[1, 1:3] = 0.5  # one source token, two target tokens
    shared[2:4, 3] = 1.0  # two source tokens, one target token
    mix = CrossMix(0, shared, None).logits
    assert mix.mapper == (0, 1, 1, 2, 4) and mix.weights == pytest.approx((1,) * 5)
    assert mix.log_factors is not None
    assert torch.tensor(mix.log_factors).exp().tolist() == pytest.approx([1, 0.5, 0.5, 2, 1])
    fitted = mix.of(3, 7)
    assert fitted.source_row == 3 and fitted.mapper[5:] == (-1, -1) and fitted.weights[5:] == (0, 0)
    louder = CrossMix.aligned(0, (0, 1, -1), (1.0, 0.25, 0.0))
    assert louder.own is not None
    louder = CrossMix(0, louder.shared * 3, louder.own * 3).logits
    assert louder.weights == pytest.approx((1, 0.25, 0)) and louder.mapper == (0, 1, -1)
    assert torch.tensor(louder.log_factors).exp().tolist() == pytest.approx([3, 3, 3])
    with pytest.raises(ValueError, match="must not be negative"):
        _ = CrossMix(0, -shared, None).logits


def test_places_and_alignment_cover_every_encoder(model) -> None:
    clip, t5 = readings(model, TARGET)
    assert t5.first == 77 and len(clip.ids) + len(t5.ids) == model.max_tokens
    dog = word_places(TARGET, "dog", (clip, t5))
    assert dog == (*word_places(TARGET, "dog", clip), *word_places(TARGET, "dog", t5))
    assert min(dog) < 77 <= max(dog)
    found = alignment(model, SOURCE, TARGET)
    assert len(found.mapper) == model.max_tokens
    beach = word_places(TARGET, "beach", (clip, t5))
    before = word_places(SOURCE, "beach", readings(model, SOURCE))
    assert tuple(found.mapper[place] for place in beach) == before
    assert all(found.mapper[place] == -1 for place in dog)
    matrix = replacement(model, SOURCE, SOURCE.replace("cat", "dog"))
    assert torch.equal(matrix, torch.eye(model.max_tokens))


# Identities.


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(
    "on", [{}, {"m": True}, {"a": True}, {"phi": True}, {"m": True, "a": True}]
)
def test_direct_inversion_returns_the_photo_with_any_swap_on(on, guidance, model, direct) -> None:
    steps = list(replay_steps(model, direct, [SOURCE], all_steps(**on), guidance=guidance))
    assert direct.clean is not None and apart(steps[-1].target, direct.clean) < 1e-12


def test_all_swaps_on_return_the_photo_in_float32() -> None:
    single = tiny_flow("sd35")
    drawn = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = InvertSettings.filled({"method": "direct", "steps": STEPS})
    found = invert(single, drawn, SOURCE, settings)
    *_, last = replay_steps(
        single, found, [SOURCE], all_steps(m=True, a=True, phi=True), guidance=4.0
    )
    assert found.clean is not None and apart(last.target, found.clean) < 1e-5


def test_phi_acts_on_both_rows_of_guidance_and_m_on_one(model, direct) -> None:
    rows = {}
    for name in ("m", "phi"):
        steps = list(replay_steps(model, direct, [TARGET], all_steps(**{name: True}), guidance=4.0))
        rows[name] = {step.nfe for step in steps[1:]}
    assert rows == {"m": {4}, "phi": {4}}


# The verbs.


def test_photoswap_ends_by_noise_level() -> None:
    """paper: as far as phi, M and A of 50 DDIM steps reach, by the ratio of noise to signal."""
    name = "stabilityai/stable-diffusion-3.5-medium"
    paper = SwapSettings.filled({"preset": "paper"}, name)
    best = SwapSettings.filled({}, name)
    from understudy.diffusion.flow import DynamicShift, FlowSchedule

    flux = FlowSchedule(DynamicShift(), cells_per_token=4).times(28, 128 * 128)
    counts = []
    for settings in (paper, best):
        plan = schedule_of(replace(settings, steps=28), flux)
        counts.append([len(one) for one in (plan.self_output, plan.self_map, plan.cross_map)])
    assert counts[0] == [12, 19, 17]
    assert counts[1] == [6, 12, 17]
    assert first_steps(4, 1.0, 0.0, 0.5, sigmas=(1.0, 0.9, 0.5, 0.3, 0.0)).self_output == range(4)
    assert first_steps(4, 1.0, 0.0, 0.5, sigmas=(1.0, 0.9, 0.5, 0.3, 0.0)).cross_map == range(2)


def test_a_swap_blends_by_words_and_keeps_the_rest(model, direct) -> None:
    settings = SwapSettings.filled(
        {"steps": STEPS, "guidance": 3.0, "where": "attention", "paste": False, "eta": 0.0,
         "budget": 0, "self_output_steps": 1, "self_map_steps": 2, "cross_map_steps": 2}
    )  # fmt: skip
    half = torch.zeros(1, 1, *SIZE)
    half[..., : SIZE[0] // 2, :] = 1
    target = Target(TARGET, (Replacement("cat", "red dog"),), half)
    *_, last = swap_steps(model, direct, target, settings)
    assert last.mask is not None and 0 < last.mask.mean() <= 0.5
    outside = (1 - last.mask).expand_as(last.target).bool()
    assert direct.clean is not None
    assert apart(last.target[outside], direct.clean[outside]) == 0


def test_recorded_words_are_looked_for_in_some_blocks() -> None:
    sums = Blend(0, (5,), ((5,),)).sums((6, 4), frozenset({1}))
    assert sums is not None
    sites = [
        AttentionSite("x", "joint", 0, "double", 1), AttentionSite("x", "joint", 0, "double", 0),
        AttentionSite("x", "joint", 0, "single", 1), AttentionSite("x", "cross", 0, "up", 0),
    ]  # fmt: skip
    assert [sums.wants(site) for site in sites] == [True, False, False, True]


def edited(model, direct, target: str | Target, words: WordEdits | None = None, **given):
    settings = EditSettings.filled({"steps": STEPS, "guidance": 3.0, **given})
    *_, last = edit_steps(model, direct, target, settings, words=words)
    return last.target


def test_prompt_to_prompt_edits_words(model, direct) -> None:
    assert {"cat", "dog", "red"} <= set(WORDS)
    replaced = SOURCE.replace("cat", "dog")
    kept = edited(model, direct, replaced, cross_map_steps=STEPS, self_map_steps=0)
    free = edited(model, direct, replaced, cross_map_steps=0, self_map_steps=0)
    assert apart(kept, free) > 1e-5 and apart(kept, direct.clean) > 1e-5
    same = edited(model, direct, SOURCE, cross_map_steps=STEPS, self_map_steps=STEPS)
    assert apart(same, direct.clean) < 1e-12
    louder = edited(
        model, direct, SOURCE, WordEdits(weights={"cat": 3.0}), cross_map_steps=STEPS,
        self_map_steps=0,
    )  # fmt: skip
    assert apart(louder, direct.clean) > 1e-5
    blended = edited(model, direct, Target(replaced, (Replacement("cat", "dog"),)))
    assert bool(blended.isfinite().all())


def test_a_logit_mix_of_the_wrong_length_is_refused(model) -> None:
    from understudy.attention.joint import Projected, attend_joint
    from understudy.attention.plan import AttentionPlan

    parts = torch.randn(3, 2, 1, 10, 4)
    site = AttentionSite("x", "joint", 0, "double", image=slice(0, 6), text=slice(6, 10))
    plan = AttentionPlan(words={1: LogitMix(0, (0,), (1.0,))})
    with pytest.raises(ValueError, match="wants 4 words. Got 1"):
        attend_joint(Projected(*parts.expand(3, 2, 1, 10, 4), 0.5), site, plan)
