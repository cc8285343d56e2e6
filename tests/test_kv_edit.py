"""KV-Edit: attention against float64 maps and against the paper's tokens; what must not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from test_joint import ORDERS, SCALE, close, each_order, given
from tiny_flow import tiny_flow, tiny_flow_folder
from understudy import cli
from understudy.attention.joint import attend_joint
from understudy.attention.plan import AttentionPlan, Background, Segments
from understudy.diffusion.sampler import starting_noise
from understudy.diffusion.text import Text
from understudy.edit import edit_steps
from understudy.errors import InputError
from understudy.invert import invert
from understudy.invert.inversion import Inversion
from understudy.jobs import edit as jobs_edit
from understudy.models.transformer import processors
from understudy.settings import EditSettings, InvertSettings
from understudy.transfer.background import BackgroundRows, tokens_of
from understudy.transfer.source_target import Target

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
KINDS = ["sd35", "sd3", "flux", "chroma", "klein", "qwen", "zimage"]
SOURCE, TARGET = "a photo of a cat on the beach", "a photo of a red dog"
STEPS, SIZE = 4, (64, 32)
CELLS = torch.tensor([True, False, True, True, False, True, True, False, True, True, True, False])


def region() -> Tensor:
    """A mask of the picture: a few cells, not whole tokens."""
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 8:38, 6:20] = 1
    return mask


def inverted(model, method: str = "direct") -> Inversion:
    drawn = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    how = InvertSettings.filled({"method": method, "steps": STEPS}, "org/flux")
    return invert(model, drawn, SOURCE, how)


def edited(model, found: Inversion, target=TARGET, mask: Tensor | None = None, **how: Any):
    told = {"method": "kv-edit", "steps": STEPS, "n_max": 3, "guidance": 3.0,
            "source_guidance": 3.0, **how}  # fmt: skip
    settings = EditSettings.filled(told, "org/flux")
    mask = region() if mask is None else mask
    return list(edit_steps(model, found, Target(target, mask=mask), settings))


# Attention.


def by_maps(parts, site, *, emphasis=0.0, hides=False) -> Tensor:
    """Row 1 takes the background of row 0; maps materialised, one softmax over all keys."""
    q, k, v = parts.query, parts.key.clone(), parts.value.clone()
    image = torch.arange(q.shape[2])[site.image]
    kept, changed = image[CELLS], image[~CELLS]
    k[1][:, kept], v[1][:, kept] = parts.key[0][:, kept], parts.value[0][:, kept]
    logits = q @ k.mT * SCALE
    logits[1][:, changed[:, None], kept] += emphasis
    if hides:
        logits[0][:, kept[:, None], changed] = float("-inf")
    if parts.mask is not None:
        logits = logits.masked_fill(~parts.mask[:, None, None, :], float("-inf"))
    return logits.softmax(-1) @ v


@each_order
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("how", [{}, {"emphasis": 1.5}, {"hides": True}])
def test_attention_is_the_materialised_one(order: str, masked: bool, how) -> None:
    parts, site = given(order), ORDERS[order]
    if masked:
        mask = torch.ones(3, parts.key.shape[2], dtype=torch.bool)
        mask[:, site.text.start + 1] = False
        parts = replace(parts, mask=mask)
    plan = AttentionPlan(
        background={1: Background(0, CELLS, how.get("emphasis", 0.0))},
        hidden={0: ~CELLS} if how.get("hides") else {},
    )
    close(attend_joint(parts, site, plan), by_maps(parts, site, **how))


def test_the_region_reads_what_it_would_alone() -> None:
    """The paper's form: queries of the region and the words only, background keys from a store."""
    parts, site = given("text first"), ORDERS["text first"]
    found = attend_joint(parts, site, AttentionPlan(background={1: Background(0, CELLS)}))
    image = torch.arange(parts.key.shape[2])[site.image]
    kept, own = image[CELLS], torch.ones(parts.key.shape[2], dtype=torch.bool)
    own[kept] = False
    q = parts.query[1][:, own]
    k = torch.cat([parts.key[1][:, own], parts.key[0][:, kept]], dim=1)
    v = torch.cat([parts.value[1][:, own], parts.value[0][:, kept]], dim=1)
    close(found[1][:, own], (q @ k.mT * SCALE).softmax(-1) @ v)


def test_a_background_lies_under_a_swap() -> None:
    """M on top: logits among pixels are the source's, so only the values tell."""
    parts, site = given("image first"), ORDERS["image first"]
    taken = Segments(image=(0, 0, 2))
    plan = AttentionPlan(query_from=taken, key_from=taken, background={1: Background(0, CELLS)})
    values = parts.value.clone()
    kept = torch.arange(12)[CELLS]
    values[1][:, kept] = parts.value[0][:, kept]
    plain = AttentionPlan(query_from=taken, key_from=taken)
    wanted = attend_joint(replace(parts, value=values), site, plain)
    found = attend_joint(parts, site, plan)
    close(found[1][:, site.image], wanted[1][:, site.image])
    with pytest.raises(ValueError, match="cannot both swap"):
        attend_joint(parts, site, replace(plan, background={1: Background(0, CELLS, 1.0)}))


@pytest.mark.parametrize(("plan", "match"), [
    (AttentionPlan(background={1: Background(3, CELLS)}), "the call has 3 rows"),
    (AttentionPlan(background={1: Background(0, CELLS), 0: Background(2, CELLS)}), "gives a"),
    (AttentionPlan(background={1: Background(0, CELLS[1:])}), "wants 12 cells"),
])  # fmt: skip
def test_plans_that_do_not_fit_are_refused(plan: AttentionPlan, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        attend_joint(given("image first"), ORDERS["image first"], plan)


def test_a_token_is_background_when_none_of_its_cells_may_change() -> None:
    cells = torch.ones(4, 6, dtype=torch.bool)
    cells[3, 2] = False
    assert tokens_of(cells, (2, 3)).tolist() == [True] * 4 + [False, True]


# The whole edit.


def rows_by_maps(given, site, background: Tensor, sources: dict[int, int]) -> Tensor:
    """Attention of all rows, every map materialised. sources: row -> the row whose keys and values
    it reads in the background."""
    out = []
    image = torch.arange(given.key.shape[2])[site.image]
    kept = image[tokens_of(background, site.grid)]
    for row in range(len(given.query)):
        k, v = given.key[row].clone(), given.value[row].clone()
        if (source := sources.get(row)) is not None:
            k[:, kept], v[:, kept] = given.key[source][:, kept], given.value[source][:, kept]
        logits = given.query[row] @ k.mT * given.scale
        if given.mask is not None:
            logits = logits.masked_fill(~given.mask[row], float("-inf"))
        out.append(logits.softmax(-1) @ v)
    return torch.stack(out)


class ByMaps:
    """Joint and self attention of all rows by definition, and the rows' masks.

    rows: the photo's, then the targets', as many halves each.
    """

    def __init__(self, halves: int, background: Tensor, monkeypatch) -> None:
        self.halves, self.background, self.calls = halves, background, 0
        monkeypatch.setattr(processors, "attend_joint", self.attend)

    def attend(self, given, site, plan) -> Tensor:
        self.calls += 1
        rows = range(self.halves, len(given.query))
        return rows_by_maps(given, site, self.background, {row: row - self.halves for row in rows})


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_the_one_by_maps_in_every_family(kind: str, monkeypatch) -> None:
    """Float64; two rows of the photo and two of the target where guidance has an empty prompt."""
    model = tiny_flow(kind, dtype=torch.float64)
    found = inverted(model)
    steps = edited(model, found)
    halves = 2 if model.guidance.kind == "cfg" else 1
    assert {step.nfe for step in steps} == {2 * halves} and len(steps) == 3
    cells = torch.nn.functional.adaptive_avg_pool2d(region(), found.noise.shape[-2:]) > 0
    assert torch.equal(steps[-1].mask, cells.double())
    with monkeypatch.context() as patch:
        maps = ByMaps(halves, ~cells[0, 0], patch)
        wanted = edited(model, found)
    assert maps.calls == 3 * len(model.sites)
    for step, one in zip(steps, wanted, strict=True):
        assert (step.target - one.target).abs().max() < 1e-12
    # The background is the photo's, and the region another.
    outside = ~cells.expand_as(steps[-1].target)
    assert found.clean is not None
    assert torch.equal(steps[-1].target[outside], found.clean[outside])
    assert (steps[-1].target - found.clean)[~outside].abs().max() > 1e-3


def test_the_steps_are_eulers(monkeypatch) -> None:
    """After an inversion with its own way back, the region moves by its own velocity."""
    model = tiny_flow("schnell", dtype=torch.float64)
    found = inverted(model, "midpoint")
    one = {"guidance": 1.0, "source_guidance": 1.0}
    steps = edited(model, found, **one)
    assert found.path is not None and not found.paired
    changes = steps[-1].mask
    assert changes is not None
    control_seen: list[Text] = []
    predict = model.predict

    def listening(latents, time, text, control=None, references=()):
        control_seen.append(text)
        return predict(latents, time, text, control, references)

    monkeypatch.setattr(model, "predict", listening)
    edited(model, found, **one)
    assert len(control_seen) == 3 and len(control_seen[0]) == 2
    from understudy.edit.kv_edit import BackgroundControl

    z = found.path[1:2]
    text = Text.cat([model.embed([SOURCE]), model.embed([TARGET])])
    control = BackgroundControl(BackgroundRows({1: 0}, {1: changes[0, 0] == 0}))
    with torch.no_grad():
        for i in range(1, STEPS):
            start, end = found.times[i : i + 2]
            v = predict(torch.cat([found.path[i : i + 1], z]), start, text, control)[1:]
            z = torch.where(changes > 0, z + (end - start) * v, found.path[i + 1 : i + 2])
            assert (steps[i - 1].target - z).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["sd35", "flux", "qwen", "zimage"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_equal_prompts_return_the_photo(kind: str, guidance: float) -> None:
    model = tiny_flow(kind, dtype=torch.float64)
    found = inverted(model)
    how = {"guidance": guidance, "source_guidance": guidance, "n_max": STEPS}
    last = edited(model, found, SOURCE, **how)[-1]
    assert found.clean is not None
    assert (last.target - found.clean).abs().max() < 1e-12


def test_an_empty_mask_returns_the_photo_exactly() -> None:
    model = tiny_flow("flux")
    found = inverted(model)
    assert found.clean is not None
    for how in ({}, {"re_init": True, "n_max": STEPS}, {"attn_scale": 1.0}):
        last = edited(model, found, mask=torch.zeros(1, 1, *SIZE), **how)[-1]
        assert torch.equal(last.target, found.clean)
    assert torch.equal(edited(model, found, n_max=0)[-1].target, found.clean)


def test_targets_do_not_see_each_other_and_options_change_the_result() -> None:
    model = tiny_flow("sd35", dtype=torch.float64)
    found = inverted(model)
    other = torch.zeros(1, 1, *SIZE)
    other[..., 40:, :] = 1
    told = {"method": "kv-edit", "steps": STEPS, "n_max": 3, "guidance": 3.0}
    settings = EditSettings.filled(told, "org/stable-diffusion-3")
    both = [Target(TARGET, mask=region()), Target("a house", mask=other)]
    *_, pair = edit_steps(model, found, both, settings)
    for number, target in enumerate(both):
        *_, alone = edit_steps(model, found, target, settings)
        assert (pair.target[number] - alone.target[0]).abs().max() < 1e-12
    plain = edited(model, found)[-1].target
    for how in ({"re_init": True}, {"attn_scale": 2.0}, {"attn_mask": True}, {"n_max": 4}):
        assert (edited(model, found, **how)[-1].target - plain).abs().max() > 1e-6, how
    seeds = [edited(model, found, re_init=True, noise_seed=n)[-1].target for n in (0, 1)]
    assert not torch.allclose(*seeds)


@pytest.mark.parametrize("n_max", [3, 4])
def test_the_fresh_start_is_the_photo_s_latents_with_noise(n_max: int, monkeypatch) -> None:
    """With all steps taken the region starts from noise alone."""
    model, seen = tiny_flow("schnell", dtype=torch.float64), list[Tensor]()
    found, predict = inverted(model, "euler"), model.predict

    def listening(latents, *given):
        seen.append(latents)
        return predict(latents, *given)

    monkeypatch.setattr(model, "predict", listening)
    how = {"re_init": True, "n_max": n_max, "guidance": 1.0, "source_guidance": 1.0}
    steps = edited(model, found, noise_seed=5, **how)
    assert found.path is not None and steps[0].mask is not None
    noise = starting_noise([5], found.noise.shape[1:], like=model)
    sigma = found.times[4 - n_max]
    fresh = (1 - sigma) * found.path[-1:] + sigma * noise
    start = torch.where(steps[0].mask > 0, fresh, found.path[4 - n_max : 5 - n_max])
    assert (seen[0][1:] - start).abs().max() < 1e-12


def test_settings_are_the_authors() -> None:
    flux = EditSettings.filled({"method": "kv-edit"}, "black-forest-labs/FLUX.1-dev")
    assert (flux.steps, flux.n_max, flux.source_guidance, flux.guidance) == (28, 24, 1.5, 5.5)
    fast = EditSettings.filled({"method": "kv-edit"}, "black-forest-labs/FLUX.1-schnell")
    assert (fast.steps, fast.n_max, fast.guidance) == (4, 4, 1.0)
    medium = EditSettings.filled({"method": "kv-edit"}, "stabilityai/stable-diffusion-3.5-medium")
    assert (medium.steps, medium.guidance, medium.source_guidance) == (40, 4.5, 1.0)


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from tiny import tiny_model

    model = tiny_flow("flux")
    found = inverted(model)
    settings = EditSettings.filled({"method": "kv-edit", "steps": STEPS}, "org/flux")
    with pytest.raises(InputError, match="Say which: --mask FILE or --select WORD"):
        list(edit_steps(model, found, TARGET, settings))
    with pytest.raises(InputError, match="needs the photo's latents of every step"):
        bare = replace(found, method="seed", trajectory=found.noise)
        list(edit_steps(model, bare, Target(TARGET, mask=region()), settings))
    unet = tiny_model()
    with pytest.raises(InputError, match="--method kv-edit edits with flow models"):
        edit_steps(unet, replace(found, fingerprint=unet.fingerprint), TARGET, settings)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (32, 32)).save(photo)
    told = ["edit", str(photo), "--prompt", "a cat", "--to", "a dog", "--method", "kv-edit"]
    assert cli.main([*told, "--model", str(tiny_flow_folder("flux"))]) == 2
    assert "Say which: --mask FILE" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["flux", "sd35"])
def test_the_command_gives_the_same(kind: str, tmp_path: Path, monkeypatch) -> None:
    drew, decoded = list[Tensor](), jobs_edit.decoded
    monkeypatch.setattr(jobs_edit, "decoded", lambda m, x: (drew.append(x), decoded(m, x))[1])
    photo, mask, out = (tmp_path / f"{name}.png" for name in ("photo", "mask", "out"))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo)
    drawn = np.zeros((32, 32), dtype=np.uint8)
    drawn[:, 24:] = 255
    Image.fromarray(drawn).save(mask)
    told = ["edit", str(photo), "--prompt", SOURCE, "--to", TARGET, "--method", "kv-edit",
            "--steps", "4", "--region", "full", "--model", str(tiny_flow_folder(kind)),
            "--mask", str(mask), "--out", str(out)]  # fmt: skip
    assert cli.main(told) == 0
    model = tiny_flow(kind)
    name = str(tiny_flow_folder(kind))
    how = {"method": "kv-edit", "steps": 4}
    settings = EditSettings.filled(how, name)
    shown = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    direct = {"method": "direct", "steps": 4, "guidance": settings.guidance}
    found = invert(model, shown, SOURCE, InvertSettings.filled(direct, name))
    target = Target(TARGET, mask=torch.from_numpy(drawn)[None, None] / 255)
    *_, last = edit_steps(model, found, target, settings)
    assert torch.equal(last.target[..., :12], model.encode(shown)[..., :12])
    assert torch.allclose(drew[-1], last.target, atol=1e-5)
    assert not torch.allclose(last.target, model.encode(shown), atol=1e-2)
    with Image.open(out) as picture:
        assert picture.size == (32, 32)


def test_the_bench_draws_the_region_of_the_old_subject_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside what the case's noun selects, the picture before decoding is the source's."""
    from understudy.evaluate import methods
    from understudy.evaluate.bench import BenchCase
    from understudy.evaluate.setup import Setup

    model, drew = tiny_flow("sd35"), list[Tensor]()
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda x: (drew.append(x), decode(x))[1])
    draws = torch.Generator().manual_seed(1)
    source, *photos = (torch.rand(1, 3, 32, 32, generator=draws) * 2 - 1 for _ in range(4))
    where = np.zeros((32, 32), dtype=np.float32)
    where[20:, 20:] = 1
    monkeypatch.setattr(methods, "find_mask", lambda m, pixels, prompt, selection: where)
    case = BenchCase("one", 1, "toy", "dog", torch.cat(photos), source, "a photo of a cat", "cat")
    told = {"learn": {"method": "lora", "steps": 1, "prior_samples": 0}, "swap": {"steps": 2}}
    method, setup = methods.METHODS["kv-edit"], Setup(model, told, tmp_path)
    assert method.make(case, setup).shape == (1, 3, 32, 32)
    with torch.no_grad():
        latents = model.encode(source)
    assert torch.equal(drew[-1][..., :9, :], latents[..., :9, :])
    assert not torch.allclose(drew[-1], latents, atol=1e-3)
    assert method.facts(setup)["edit"]["method"] == "kv-edit"
