"""`swap --background kv-edit`: attention against float64 maps, and what must not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from test_kv_edit import SIZE, SOURCE, STEPS, TARGET, inverted, region, rows_by_maps
from tiny import tiny_folder, tiny_model
from tiny_flow import tiny_flow, tiny_flow_folder
from understudy import cli
from understudy.concept import Concept
from understudy.concept.apply import named_parameters
from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.jobs import swap as jobs_swap
from understudy.models.transformer import processors
from understudy.settings import SwapSettings
from understudy.swap import swap_steps
from understudy.transfer.background import background_rows, tokens_of
from understudy.transfer.batch_layout import BatchLayout, Branch
from understudy.transfer.schedule import Swaps
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import SwapStep

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
KINDS = ["sd35", "sd3", "flux", "chroma", "klein", "qwen", "zimage"]
NONE = {"self_output_steps": 0, "self_map_steps": 0, "cross_map_steps": 0}


def swapped(model, found: Inversion, mask: Tensor | None = None, **how: Any) -> list[SwapStep]:
    """All steps; by default with the settings of Photoswap's swaps in some of them."""
    told = {"steps": STEPS, "guidance": 3.0, "blend": False, "eta": 0.0, "budget": 0,
            "background": "kv-edit", "self_output_steps": 1, "self_map_steps": 2,
            "cross_map_steps": 3, **how}  # fmt: skip
    target = Target(TARGET, mask=region() if mask is None else mask)
    return list(swap_steps(model, Source(found), target, SwapSettings.filled(told, "org/flux")))


def cells_of(mask: Tensor, found: Inversion) -> Tensor:
    """Cells of the latents that may change."""
    return torch.nn.functional.adaptive_avg_pool2d(mask, found.noise.shape[-2:])[0, 0] > 0


class ByMaps:
    """Attention of all rows by definition, every map materialised.

    Without other swaps: rows are the photo's, conditional and unconditional, then the target's
    unconditional and conditional ones. In the first step the unconditional rows are one.
    """

    def __init__(self, background: Tensor, guided: bool, monkeypatch) -> None:
        self.background, self.guided, self.seen = background, guided, list[int]()
        monkeypatch.setattr(processors, "attend_joint", self.attend)

    def sources(self, rows: int) -> dict[int, int]:
        if not self.guided:
            return {1: 0}
        return {2: 1, 3: 0} if rows == 4 else {2: 0}

    def attend(self, given, site, plan) -> Tensor:
        rows = len(given.query)
        self.seen.append(rows)
        return rows_by_maps(given, site, self.background, self.sources(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_a_swap_is_the_one_by_maps_in_every_family(kind: str, monkeypatch) -> None:
    """Float64: the background is the photo's exactly, the region as with materialised maps."""
    model = tiny_flow(kind, dtype=torch.float64)
    found, guided = inverted(model), model.guidance.kind == "cfg"
    steps = swapped(model, found, **NONE)
    assert {step.nfe for step in steps[1:]} == {4 if guided else 2}
    may_change = cells_of(region(), found)
    with monkeypatch.context() as patch:
        maps = ByMaps(~may_change, guided, patch)
        wanted = swapped(model, found, **NONE)
    assert len(maps.seen) == STEPS * len(model.sites)
    for step, one in zip(steps, wanted, strict=True):
        assert (step.target - one.target).abs().max() < 1e-12
    assert found.clean is not None
    outside = ~may_change.expand_as(found.clean)
    assert torch.equal(steps[-1].target[outside], found.clean[outside])
    # The region is not the one that a background of latents alone gives.
    plain = swapped(model, found, background="latents", **NONE)[-1]
    assert (steps[-1].target - plain.target)[~outside].abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["sd35", "flux", "zimage"])
def test_m_a_and_phi_lie_over_the_background(kind: str, monkeypatch) -> None:
    """The plan of every layer is the swap's own, on keys and values exchanged beforehand."""
    model = tiny_flow(kind, dtype=torch.float64)
    found = inverted(model)
    steps = swapped(model, found)
    plainly = processors.attend_joint
    exchanged = list[int]()

    def by_hand(given, site, plan) -> Tensor:
        if plan is None:
            return plainly(given, site, plan)
        key, value = given.key.clone(), given.value.clone()
        image = torch.arange(key.shape[2])[site.image]
        kept = image[tokens_of(~cells_of(region(), found), site.grid)]
        for row, one in plan.background.items():
            exchanged.append(row)
            key[row][:, kept] = given.key[one.source_row][:, kept]
            value[row][:, kept] = given.value[one.source_row][:, kept]
        return plainly(replace(given, key=key, value=value), site, replace(plan, background={}))

    with monkeypatch.context() as patch:
        patch.setattr(processors, "attend_joint", by_hand)
        wanted = swapped(model, found)
    assert exchanged
    for step, one in zip(steps, wanted, strict=True):
        assert (step.target - one.target).abs().max() < 1e-12
    assert found.clean is not None
    outside = ~cells_of(region(), found).expand_as(found.clean)
    assert torch.equal(steps[-1].target[outside], found.clean[outside])
    assert (steps[-1].target - swapped(model, found, **NONE)[-1].target).abs().max() > 1e-5


@pytest.mark.parametrize("kind", ["sd35", "flux"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_equal_prompts_return_the_photo(kind: str, guidance: float) -> None:
    model = tiny_flow(kind, dtype=torch.float64)
    found = inverted(model)
    target = Target(SOURCE, mask=region())
    told = {"steps": STEPS, "guidance": guidance, "blend": False, "eta": 0.0, "budget": 0,
            "background": "kv-edit", "paste": False}  # fmt: skip
    *_, last = swap_steps(model, Source(found), target, SwapSettings.filled(told, "org/flux"))
    assert found.clean is not None
    assert (last.target - found.clean).abs().max() < 1e-12


def test_empty_and_whole_masks() -> None:
    """Nothing may change: the photo. All may: the swap without a background."""
    model = tiny_flow("sd35", dtype=torch.float64)
    found = inverted(model)
    none, every = torch.zeros(1, 1, *SIZE), torch.ones(1, 1, *SIZE)
    assert found.clean is not None
    assert torch.equal(swapped(model, found, none)[-1].target, found.clean)
    whole = swapped(model, found, every)[-1].target
    assert (whole - swapped(model, found, every, background="latents")[-1].target).abs().max() < (
        1e-12
    )


def test_two_targets_have_their_own_backgrounds() -> None:
    """Each is what it is alone, also where their schedules and prompts are equal."""
    model = tiny_flow("sd35", dtype=torch.float64)
    found = inverted(model)
    other = region().flip(-1)
    told = {"steps": STEPS, "guidance": 3.0, "blend": False, "eta": 0.0, "budget": 0,
            "background": "kv-edit", "paste": False, "negative": "a red dog"}  # fmt: skip
    settings = SwapSettings.filled(told, "org/flux")
    targets = [Target(TARGET, mask=region()), Target(TARGET, mask=other)]
    *_, both = swap_steps(model, Source(found), targets, settings)
    for number, target in enumerate(targets):
        *_, alone = swap_steps(model, Source(found), target, settings)
        assert (both.target[number] - alone.target[0]).abs().max() < 1e-12
    assert (both.target[0] - both.target[1]).abs().max() > 1e-4


def test_refining_keeps_the_background() -> None:
    """The repeated steps with fresh noise read the photo's keys as well."""
    model = tiny_flow("sd35", dtype=torch.float64)
    found = inverted(model)
    told = {"refine_steps": 2, "blend": True, "where": "difference", "eta": 1.0}
    steps = swapped(model, found, **told)
    assert len(steps) == STEPS + 2 and found.clean is not None
    mask = steps[-1].mask
    assert mask is not None
    outside = (mask == 0).expand_as(found.clean)
    assert outside.any() and torch.equal(steps[-1].target[outside], found.clean[outside])
    plain = swapped(model, found, **told, background="latents")[-1]
    assert (steps[-1].target - plain.target).abs().max() > 1e-6


def test_words_find_the_background_from_the_step_after_the_first_blend() -> None:
    from understudy.transfer.source_target import Replacement

    model = tiny_flow("sd35", dtype=torch.float64)
    found = inverted(model)
    told = {"steps": STEPS, "guidance": 1.0, "blend": True, "where": "attention", "eta": 0.0,
            "budget": 0, "background": "kv-edit", "paste": False, **NONE}  # fmt: skip
    target = Target(TARGET, (Replacement("cat", "red dog"),), mask=region())
    steps = list(swap_steps(model, Source(found), target, SwapSettings.filled(told, "org/flux")))
    mask = steps[-1].mask
    assert mask is not None and found.clean is not None
    outside = (mask == 0).expand_as(found.clean)
    assert torch.equal(steps[-1].target[outside], found.clean[outside])


def test_rows_that_are_the_photos_own_take_nothing() -> None:
    swaps = Swaps(False, False, False)
    branches = (Branch(0, (0,), swaps), Branch(0, (1,), swaps))
    latents, mask = torch.zeros(5, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    mask[1, 0, 0, 0] = 1
    text = Text(torch.zeros(5, 1, 1))
    shared = background_rows(BatchLayout(1, 0, (1, 1), (2, 3), latents, text), branches, mask)
    assert shared.sources == {2: 0, 3: 0}
    own = background_rows(BatchLayout(1, 0, (2, 3), (4, 5), latents, text), branches, mask)
    assert own.sources == {4: 0, 2: 1, 5: 0, 3: 1}
    assert own.cells[2].all() and own.cells[3].sum() == own.cells[5].sum() == 3


def concept_at(folder: Path, model) -> None:
    """A subject whose weights are a little different."""
    key = next(key for key in named_parameters(model) if key.endswith("to_q.weight"))
    Concept(
        name="rex",
        identifier="red",
        class_noun="cat",
        kind="dreambooth",
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors={key: torch.full_like(named_parameters(model)[key], 0.1)},
    ).save(folder / "rex")


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    unet, flow = tiny_model("toy"), tiny_flow("flux")
    settings = SwapSettings.filled({"background": "kv-edit"}, "org/flux")
    found = replace(inverted(flow), fingerprint=unet.fingerprint)
    with pytest.raises(InputError, match="--background kv-edit is for flow models"):
        list(swap_steps(unet, Source(found), TARGET, settings))
    off = SwapSettings.filled(
        {"background": "kv-edit", "blend": False, "steps": STEPS, "guidance": 1.0}, "org/flux"
    )
    with pytest.raises(InputError, match="add --blend or a --mask"):
        list(swap_steps(flow, Source(inverted(flow)), TARGET, off))
    photo = tmp_path / "photo.png"
    Image.new("RGB", (32, 32)).save(photo)
    told = ["swap", str(photo), "--prompt", "a photo of a cat", "--swap", f"cat={tmp_path / 'rex'}"]
    kept = ["--background", "kv-edit", "--no-blend", "--out", str(tmp_path / "out.png")]
    assert cli.main([*told, *kept, "--model", str(tiny_flow_folder("flux"))]) == 2
    assert "needs to know where the subject is" in capsys.readouterr().err
    concept_at(tmp_path, unet)
    assert cli.main([*told, *kept[:2], "--model", str(tiny_folder("toy")), "--steps", "2"]) == 2
    assert "Use --background latents" in capsys.readouterr().err


def test_the_command_keeps_the_background(tmp_path: Path, monkeypatch) -> None:
    drew, decoded = list[Tensor](), jobs_swap.decoded
    monkeypatch.setattr(jobs_swap, "decoded", lambda m, x: (drew.append(x), decoded(m, x))[1])
    photo, mask, out = (str(tmp_path / f"{name}.png") for name in ("photo", "mask", "out"))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo)
    drawn = np.zeros((32, 32), dtype=np.uint8)
    drawn[:, 24:] = 255
    Image.fromarray(drawn).save(mask)
    model = tiny_flow("sd35")
    concept_at(tmp_path, model)
    told = ["swap", photo, "--prompt", SOURCE, "--swap", f"cat={tmp_path / 'rex'}", "--mask", mask]
    told += ["--steps", "3", "--no-blend", "--region", "full", "--background", "kv-edit"]
    assert cli.main([*told, "--model", str(tiny_flow_folder("sd35")), "--out", out]) == 0
    shown = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        clean = model.encode(shown)
    assert torch.equal(drew[-1][..., :12], clean[..., :12])
    assert not torch.allclose(drew[-1], clean, atol=1e-3)
    with Image.open(out) as picture:
        assert picture.size == (32, 32)
