"""edit/plug_and_play.py: the recorded edits, and the plain method on tiny models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from golden_model import GoldenCase, golden_cases, rows_per_step
from golden_swaps import apart
from plain_edit import plain_pnp
from test_swap import SOURCE, STEPS, model_of, null_text, seeded
from understudy.diffusion.text import Text
from understudy.edit.plug_and_play import plug_and_play_steps, source_path
from understudy.errors import InputError, ModelError
from understudy.invert.inversion import Inversion, ddim_inversion_steps
from understudy.models.unet.denoiser import install
from understudy.models.unet.injection import FeaturePlan

# As published, for the shapes of Stable Diffusion 1.x and 2.x.
LAYERS = [
    f"up_blocks.{block}.attentions.{n}.transformer_blocks.0.attn1"
    for block, numbers in ((1, (1, 2)), (2, (0, 1, 2)), (3, (0, 1, 2)))
    for n in numbers
]
CONVOLUTION = "up_blocks.1.resnets.1.conv2"


def inverted(case: GoldenCase, model) -> Inversion:
    prompt = case.prompt(text="inversion_prompt", emb="inversion_emb", default="")
    steps = case.get("inversion_steps", "sampling_steps")
    *_, last = ddim_inversion_steps(model, case.array("x0")[None], prompt, steps=steps)
    return last.inversion


def counts(case: GoldenCase) -> tuple[int, int]:
    """Steps that take queries and keys, steps that take features."""
    steps, told = case.settings["sampling_steps"], case.settings
    ours = int(told.get("pnp_attn_t", 0) * steps), int(told.get("pnp_f_t", 0) * steps)
    return told.get("qk_steps", ours[0]), told.get("feature_steps", ours[1])


def negative(case: GoldenCase) -> Tensor:
    """The embedding that guidance leads away from."""
    return case.text(case.settings["negative_emb"]) if case.get("negative_emb") else case.empty


def compare(case: GoldenCase, path, latents) -> dict[str, float]:
    """Largest differences to the recorded source and edited latents."""
    errors = {}
    for name, ours in (("source", path), ("latent", [path[0], *latents])):
        indices = case.get(f"{name}_indices", default=())
        key = "latents" if name == "latent" else "source_latents"
        recorded = case.array(key) if case.has(key) else ()
        for index, latent in zip(indices, recorded, strict=True):
            errors[f"{name} {index}"] = apart(ours[index], latent)
    return errors


def brief(case: GoldenCase) -> bool:
    return case.get("inversion_steps", "sampling_steps") <= 20


def fast(case: GoldenCase) -> None:
    want, model, steps = case.settings, case.model(), case.settings["sampling_steps"]
    assert want.get("timesteps") in (None, list(model.schedule.times(steps))[:-1])
    inversion = inverted(case, model)
    before = model.nfe
    map_steps, feature_steps = counts(case)
    walked = list(
        plug_and_play_steps(
            model,
            inversion,
            case.text(want["target_emb"]),
            steps=steps,
            guidance=want["guidance"],
            map_steps=map_steps,
            feature_steps=feature_steps,
            negative=negative(case),
        )
    )
    reads = max(map_steps, feature_steps)
    expected = rows_per_step(want["guidance"]) * steps + reads
    assert model.nfe - before == sum(s.nfe for s in walked) <= expected
    path = source_path(model, inversion, steps)
    errors = compare(case, path, [step.target[0] for step in walked])
    print(case.name, max(errors.values()), model.nfe - before)
    assert max(errors.values()) < 1e-6


@golden_cases("f_pnp", where=brief)
def test_golden_plug_and_play_of_a_few_steps(case: GoldenCase) -> None:
    fast(case)


@pytest.mark.slow
@golden_cases("f_pnp", where=lambda case: not brief(case))
def test_golden_plug_and_play(case: GoldenCase) -> None:
    fast(case)


@pytest.mark.slow
@golden_cases("f_pnp")
def test_golden_plug_and_play_by_the_plain_method(case: GoldenCase) -> None:
    want, model = case.settings, case.model()
    path = source_path(model, inverted(case, model), want["sampling_steps"])
    map_steps, feature_steps = counts(case)
    try:
        walked = plain_pnp(
            model,
            path,
            (case.empty, negative(case), case.text(want["target_emb"])),
            LAYERS,
            CONVOLUTION,
            guidance=want["guidance"],
            times=model.schedule.times(want["sampling_steps"]),
            map_steps=map_steps,
            feature_steps=feature_steps,
        )
    finally:
        install(model.unet)
    errors = compare(case, path, [latents[0] for latents in walked])
    print(case.name, max(errors.values()))
    assert max(errors.values()) < 1e-6


# --- Tiny models --------------------------------------------------------------------------------

TARGETS = ("a photo of dog", "a photo of red bear")


def edited(model, inversion, targets=TARGETS, steps=STEPS, **how):
    how = {"map_steps": 2, "feature_steps": 3, "guidance": 4.0} | how
    texts = Text.cat([model.embed([target]) for target in targets])
    return list(plug_and_play_steps(model, inversion, texts, steps=steps, **how))


def test_the_places_are_those_of_the_published_layers():
    """In a U-Net of Stable Diffusion's arrangement; here by name, without running it."""
    from golden_model import GoldenModel, golden_folders

    if not golden_folders():
        pytest.skip("no golden U-Net")
    model = GoldenModel(golden_folders()[0] / "diffusion")
    sites = model.denoiser.sites
    later = [s.name for s in sites if s.block == "up" and s.kind == "self" and s.transformer >= 1]
    assert later == LAYERS


def test_targets_are_the_plain_ones_and_take_nothing_from_each_other():
    model = model_of("sd21")
    photo = 0.5 * seeded(model).noise
    *_, last = ddim_inversion_steps(model, photo, SOURCE, steps=STEPS)
    negative = model.embed(["blue toy"])
    both = edited(model, last.inversion, negative=negative)
    assert [step.nfe for step in both] == [5, 5, 5, 4, 4, 4]
    layers = [
        f"up_blocks.{b}.attentions.{n}.transformer_blocks.0.attn1" for b in (0, 1) for n in (0, 1)
    ]
    for n, target in enumerate(TARGETS):
        plain = plain_pnp(
            model_of("sd21"),
            last.inversion.trajectory.flip(0),
            (model.embed([""]), negative, model.embed([target])),
            layers[1:],
            "up_blocks.0.resnets.1.conv2",
            guidance=4.0,
            times=last.inversion.times,
            map_steps=2,
            feature_steps=3,
        )
        for step, latents in zip(both, plain, strict=True):
            assert torch.allclose(step.target[n : n + 1], latents, rtol=0, atol=1e-9)


def test_an_inversion_of_more_steps_gives_its_latents_at_the_edits_times():
    model = model_of()
    *_, last = ddim_inversion_steps(model, 0.5 * seeded(model).noise, SOURCE, steps=8)
    path = source_path(model, last.inversion, 4)
    assert len(path) == 5
    assert torch.equal(path, last.inversion.trajectory[[7, 5, 3, 1, 0]])
    with pytest.raises(InputError, match="inverted in 8 steps.*--inversion-steps 5"):
        source_path(model, last.inversion, 5)


def test_a_source_that_kept_only_its_noise_is_refused():
    model = model_of()
    with pytest.raises(InputError, match="has only the last ones"):
        edited(model, seeded(model))


def test_null_text_sources_are_read_from_the_inversion_itself():
    model = model_of()
    inversion = null_text(model, steps=2)
    assert torch.equal(source_path(model, inversion, 2), inversion.trajectory.flip(0))
    last = edited(model, inversion, steps=2)[-1]
    other = edited(model, replace(inversion, null_embeddings=None), steps=2)[-1]
    assert not torch.allclose(last.target, other.target)  # its null embeddings are used


def test_outside_a_mask_the_photo_stays_exactly():
    model = model_of()
    inversion = null_text(model, steps=2)
    mask = torch.zeros(1, 1, 16, 16).to(model.dtype)
    mask[..., 4:12, 4:12] = 1
    last = edited(model, inversion, steps=2, mask=mask)[-1]
    outside = mask[0, 0] == 0
    assert torch.equal(last.target[0][:, outside], inversion.trajectory[0][:, outside])
    assert not torch.allclose(last.target[0], inversion.trajectory[0])


def test_the_model_is_as_before_and_a_place_it_has_not_is_an_error():
    model = model_of()
    before = repr(model.unet)
    noise, text = seeded(model).noise, model.embed([SOURCE])

    class Elsewhere:
        feature_plan = FeaturePlan(99, (0,))

        def plan(self, site):
            return None

    plain = model.predict(noise, 500, text)
    edited(model, null_text(model, steps=2), steps=2)
    with pytest.raises(ModelError, match="decoder transformer 99"):
        model.predict(noise, 500, text, Elsewhere())
    assert repr(model.unet) == before
    assert not any(module._forward_hooks for module in model.unet.modules())
    assert torch.equal(model.predict(noise, 500, text), plain)
