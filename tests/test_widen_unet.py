"""A narrower U-Net's weights go on in the wider one that is trained now."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel


def test_a_widened_unet_does_what_the_narrow_one_did() -> None:
    from training.build_toybox_diffusion import WIDTH, new_unet
    from training.widen_unet import widened

    wide = new_unet()
    narrow = UNet2DConditionModel.from_config(
        {**wide.config, "block_out_channels": (64, 128, 256), "attention_head_dim": (2, 4, 8)}
    )
    # Between levels of one width a shortcut is the identity; here it was one before, too.
    shortcut = narrow.down_blocks[1].resnets[0].conv_shortcut
    torch.nn.init.zeros_(shortcut.bias)
    shortcut.weight.data = torch.eye(64).repeat_interleave(2, dim=0)[:, :, None, None]
    # Two group normalisations see pairs beside single channels: what is behind them is cut off.
    for joined in (narrow.up_blocks[1].resnets[1], narrow.up_blocks[2].resnets[0]):
        torch.nn.init.zeros_(joined.conv1.weight)
    wide.load_state_dict(widened(narrow.state_dict(), wide.state_dict()))
    noisy, text = torch.randn(2, wide.config["in_channels"], 16, 16), torch.randn(2, 40, WIDTH)
    with torch.no_grad():
        before, after = (
            net(noisy, torch.tensor([300, 700]), text).sample for net in (narrow, wide)
        )
    assert (after - before).norm() / before.norm() < 1e-4
    again = widened(wide.state_dict(), wide.state_dict())
    assert all(torch.equal(value, again[name]) for name, value in wide.state_dict().items())
