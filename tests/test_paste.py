"""paste.py: outside the region the photo bit for bit, inside the swap, a soft edge between."""

from __future__ import annotations

import pytest
import torch

from tiny import tiny_model
from understudy.diffusion.sampler import starting_noise
from understudy.errors import InputError
from understudy.invert.invert import invert
from understudy.pictures.paste import changed, paste
from understudy.settings import InvertSettings, SwapSettings
from understudy.swap.photoswap import swap
from understudy.transfer.source_target import Source, Target

PHOTO, SWAPPED = torch.full((1, 3, 40, 48), -0.5), torch.full((2, 3, 40, 48), 0.5)


def drawn() -> torch.Tensor:
    mask = torch.zeros(1, 1, 40, 48)
    mask[..., 10:34, 12:40] = 1
    return mask


@pytest.mark.parametrize("feather", [0, 1, 4])
def test_nothing_outside_is_touched(feather: int) -> None:
    photo = PHOTO + 0.01 * torch.randn(PHOTO.shape, generator=torch.Generator().manual_seed(0))
    made = paste(photo, SWAPPED, drawn(), feather)
    outside = drawn()[0, 0] == 0
    assert torch.equal(made[0][:, outside], photo[0][:, outside])
    assert torch.allclose(made[:, :, 20:24, 24:28], SWAPPED[:, :, 20:24, 24:28])
    between = ((made > -0.4) & (made < 0.4)).any()
    assert bool(between) == (feather > 0)


def test_a_mask_up_to_the_pictures_edge_has_no_edge_there() -> None:
    made = paste(PHOTO, SWAPPED, torch.ones(1, 1, 40, 48), 4)
    assert torch.equal(made, SWAPPED)


def test_inside_the_photo_stays_where_the_swap_shows_the_same() -> None:
    grain = torch.randn(PHOTO.shape, generator=torch.Generator().manual_seed(0))
    photo, redrawn = PHOTO + 0.1 * grain, PHOTO
    swapped = redrawn.repeat(2, 1, 1, 1) + 0.02  # drawn anew, a little brighter
    swapped[1, :, 20:30, 20:30] = 0.5
    made = paste(photo, swapped, torch.ones(1, 1, 40, 48), 0, redrawn)
    assert torch.equal(made[:1], photo)
    assert torch.allclose(made[1, :, 20:30, 20:30], swapped[1, :, 20:30, 20:30])
    assert torch.equal(made[1, :, :15], photo[0, :, :15])  # away from what changed


def test_what_changed_is_told_by_degrees() -> None:
    steps = torch.tensor([0.0, 0.1, 0.15, 0.2, 0.5]).repeat_interleave(9)
    swapped = steps.expand(1, 3, 9, -1)
    found = changed(swapped, torch.zeros_like(swapped))[0, 0, 4, 4::9]
    assert torch.allclose(found, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]), atol=1e-5)


def test_a_swap_that_pastes_is_the_photo_outside_and_needs_to_know_where() -> None:
    model = tiny_model()
    photo = model.decode(starting_noise([1], (4, 16, 16), like=model)).clamp(-1, 1)
    inversion = invert(
        model, photo, "a cat", InvertSettings(steps=2, guidance=2.0, method="direct")
    )
    asked = {"steps": 2, "guidance": 2.0, "cross_map_steps": 1, "paste": True, "blend": False}
    settings = SwapSettings.from_dict({**asked, "feather": 0})
    mask = torch.zeros(1, 1, *photo.shape[-2:])
    mask[..., : photo.shape[-2] // 2, :] = 1
    target = Target("a dog", mask=mask)
    made = swap(model, Source(inversion, photo=photo), target, settings)
    below = photo.shape[-2] // 2
    assert torch.equal(made[..., below:, :], photo[..., below:, :])
    assert not torch.allclose(made[..., :below, :], photo[..., :below, :], atol=1e-2)
    seen = model.decode(inversion.trajectory[:1])  # without the photo: what its latents show
    assert torch.allclose(
        swap(model, inversion, target, settings)[..., below:, :], seen[..., below:, :]
    )
    with pytest.raises(InputError, match="--paste needs to know where"):
        swap(model, Source(inversion, photo=photo), "a dog", settings)
