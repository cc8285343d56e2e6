"""Plug-and-play on flow transformers: what passes from the source, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny_flow import tiny_flow
from understudy.diffusion.text import Text
from understudy.edit.plug_and_play import InjectControl, plug_and_play_steps
from understudy.errors import InputError
from understudy.invert import invert
from understudy.models.transformer.injection import layout_block
from understudy.settings import InvertSettings

KINDS = ["sd35", "flux", "schnell", "qwen", "zimage", "klein"]
PHOTO = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
PROMPTS = ["", "a photo of a dog", "a photo of a cat"]


def seen(model: Any, call: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The result, and the image tokens that reach the block behind the layout's block."""
    found: list[Tensor] = []
    block = layout_block(model.network.module)

    def look(module: Any, given: Any, output: Any) -> None:
        found.append(output[1] if isinstance(output, tuple) else output)

    with torch.no_grad():
        handle = block.register_forward_hook(look)  # runs before the method's own hook
        try:
            return call(), found
        finally:
            handle.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_draw_from_the_source_alone_when_everything_passes(kind: str) -> None:
    """With the residual of the last block passed on, all rows give the source's velocity, but for
    what they read of their own text behind it; without, each gives its own."""
    model = tiny_flow(kind)
    x = torch.randn(3, model.latent_channels, 8, 12, generator=torch.Generator().manual_seed(0))
    text = Text.cat([model.embed([prompt]) for prompt in PROMPTS])
    with torch.no_grad():
        plain = model.predict(x, 0.7, text)
        off = model.predict(x, 0.7, text, InjectControl(3, maps=False, injects=False))
        mixed = model.predict(x, 0.7, text, InjectControl(3, maps=True, injects=True))
        again = model.predict(x, 0.7, text)
    assert torch.allclose(plain, off, atol=1e-5) and torch.equal(plain, again)
    assert torch.allclose(mixed[0], plain[0], atol=1e-5)  # the source is left alone
    apart = [(one[1:] - plain[:1]).norm() for one in (plain, mixed)]
    assert 0 < apart[1] < 0.9 * apart[0]


def test_the_residual_that_passes_is_the_source_s() -> None:
    model = tiny_flow("flux")
    x = torch.randn(2, model.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    text = model.embed(PROMPTS[1:])
    _, (before,) = seen(model, lambda: model.predict(x, 0.7, text, InjectControl(2, False, True)))
    assert not torch.equal(before[0], before[1])
    blocks = model.network.module.single_transformer_blocks
    reached: list[Tensor] = []
    handle = blocks[0].register_forward_pre_hook(
        lambda module, given, told: reached.append(told["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model.predict(x, 0.7, text, InjectControl(2, False, True))
        handle.remove()
    assert torch.equal(reached[0][1], reached[0][0]) and torch.equal(reached[0][0], before[0])


@pytest.mark.parametrize("kind", ["sd35", "flux", "schnell", "qwen"])
def test_a_step_costs_the_source_only_while_it_is_read(kind: str) -> None:
    model = tiny_flow(kind)
    guidance = 1.0 if kind == "schnell" else 3.0
    how = {"steps": 4, "method": "direct", "guidance": 1.0}
    inversion = invert(model, PHOTO, "", InvertSettings.filled(how))
    steps = list(plug_and_play_steps(model, inversion, model.embed(["a dog"]), steps=4,
                                     guidance=guidance, map_steps=2, feature_steps=2))  # fmt: skip
    assert len(steps) == 4 and steps[-1].target.isfinite().all()
    rows = 2 + (kind in ("sd35", "qwen"))
    assert [step.nfe for step in steps] == [rows, rows, rows - 1, rows - 1]
    plain = list(plug_and_play_steps(model, inversion, model.embed(["a dog"]), steps=4,
                                     guidance=guidance, map_steps=0, feature_steps=0))  # fmt: skip
    assert not torch.equal(steps[0].target, plain[0].target)


def test_a_scale_that_the_model_ignores_is_refused() -> None:
    model = tiny_flow("schnell")
    how = {"steps": 2, "method": "direct", "guidance": 1.0}
    inversion = invert(model, PHOTO, "", InvertSettings.filled(how))
    with pytest.raises(InputError, match="Use --guidance 1"):
        next(plug_and_play_steps(model, inversion, model.embed(["a dog"]), steps=2, guidance=3.0,
                                 map_steps=1, feature_steps=1))  # fmt: skip
