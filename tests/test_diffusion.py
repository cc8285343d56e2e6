"""The sampler against closed forms, diffusers' schedulers and the recorded runs."""

import pytest
import torch

from golden_model import GoldenCase, golden_cases, load_cases
from understudy.attention import AttentionPlan, AttentionSite, CrossMix
from understudy.diffusion import invert_steps, sample_steps
from understudy.words import Alignment, align


def apart(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@golden_cases("a_ddim")
def test_golden_ddim(case: GoldenCase) -> None:
    """Inversion, reconstruction without guidance and guided sampling, all recorded indices."""
    want = case.settings
    model = case.model(steps_offset=want["steps_offset"])
    text, uncond, steps = case.text(want["cond"]), case.text(want["uncond"]), want["steps"]
    x0 = case.array("x0")[None]
    inverted = [x0] + [s.latents for s in invert_steps(model, x0, text, steps=steps)]
    x_t = inverted[-1]
    *_, rebuilt = sample_steps(model, x_t, text, steps=steps)
    guided = sample_steps(model, x_t, text, uncond, steps=steps, guidance=want["guidance"])
    sampled = [x_t] + [step.latents for step in guided]
    stored = want["stored_indices"]
    errors = [
        apart(torch.cat([inverted[i] for i in stored]), case.array("inversion")),
        apart(torch.cat([sampled[i] for i in stored]), case.array("cfg_sampling")),
        apart(rebuilt.latents[0], case.array("reconstruction")),
    ]
    print(case.name, errors)
    assert max(errors) < 1e-9
    assert model.rows == 4 * steps


class Photoswap:
    """Rows source-uncond, target-uncond, source-cond, target-cond, as the authors' code swaps."""

    def __init__(self, *, phi: bool, m: bool, mix: CrossMix | None) -> None:
        self.phi, self.m, self.mix = phi, m, mix
        self.asked = 0

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        self.asked += 1
        if site.is_cross:
            return None if self.mix is None else AttentionPlan(cross={3: self.mix})
        if self.phi:
            return AttentionPlan(output_from=(0, 0, 2, 2))
        return AttentionPlan(map_from=(0, 1, 2, 2)) if self.m and site.tokens <= 1024 else None


def single_forwards() -> list[tuple[GoldenCase, str]]:
    cases = load_cases("c_single_forward", "c_photoswap")
    return [
        (case, mode)
        for case in cases
        if case.name == "single_forward"
        for mode in case.settings["modes"]
    ]


def alignment(case: GoldenCase) -> Alignment:
    """Which source token each target token of the case's prompts takes attention from."""
    source, target = (case.model().tokenize(prompt) for prompt in case.settings["prompts"])
    rows = [tokens.ids[: tokens.length + 2] for tokens in (source, target)]
    return align(*rows, len(source.ids))


@pytest.mark.parametrize(
    ("case", "mode"),
    single_forwards() or [pytest.param(None, "", marks=pytest.mark.skip("no golden data"))],
)
def test_golden_single_forward(case: GoldenCase, mode: str) -> None:
    """One U-Net call with one swap at a time, through attention plans."""
    want = case.settings
    knobs = want["modes"][mode]
    step = knobs["controller_step"]
    phi = step <= int(knobs["phi"] * 50) and knobs["phi"] >= 0
    first, end = knobs["num_self_replace"]
    pairs = alignment(case)
    crossed = step < int(knobs["cross"] * 51)
    mix = CrossMix.aligned(2, pairs.mapper, pairs.alphas, dtype=torch.float64) if crossed else None
    control = Photoswap(phi=phi, m=first <= step < end, mix=mix)

    model = case.model()
    latents = case.array("/latents").repeat(2, 1, 1, 1)
    names = [want["uncond"], want["uncond"], want["source_emb"], want["target_emb"]]
    text = torch.cat([case.text(name) for name in names])
    with torch.no_grad():
        noise = model.predict_noise(latents, want["timestep"], text, control)

    recorded = case.array(f"/eps_target_rows_1_3/{knobs.get('identical_to', mode)}")
    assert apart(noise[[0, 2]], case.array("/eps_source_rows_0_2")) < 1e-12
    assert apart(noise[[1, 3]], recorded) < 1e-12
    assert control.asked == len(model.denoiser.sites) == 32
    assert model.rows == 4
