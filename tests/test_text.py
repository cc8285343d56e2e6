"""The Text value: rows are selected, repeated, joined and stored with all their parts."""

from __future__ import annotations

import pytest
import torch

from understudy.diffusion.text import Text


def text_of(rows: int, *, pooled: bool = True, mask: bool = True) -> Text:
    draws = torch.Generator().manual_seed(rows)
    return Text(
        torch.randn(rows, 5, 3, generator=draws),
        torch.randn(rows, 2, generator=draws) if pooled else None,
        torch.rand(rows, 5, generator=draws) > 0.5 if mask else None,
    )


def test_rows_are_selected_with_all_their_parts() -> None:
    text = text_of(4)
    for rows in (1, -1, slice(1, 3), [2, 0], torch.tensor([3, 3])):
        some = text[rows]
        index = [rows] if isinstance(rows, int) else rows
        assert torch.equal(some.tokens, text.tokens[index])
        assert torch.equal(some.pooled, text.pooled[index])
        assert torch.equal(some.mask, text.mask[index])


def test_cat_and_expand_are_their_parts() -> None:
    one, two = text_of(1), text_of(2)
    both = Text.cat([one.expand(3), two])
    assert len(both) == 5 and both[:1].equals(one) and both[2].equals(one)
    assert both[3:].equals(two) and not both[3].equals(one)
    with pytest.raises(ValueError, match="one family"):
        Text.cat([one, text_of(1, pooled=False)])


def test_dtype_leaves_a_mask_alone() -> None:
    text = text_of(2).to(torch.float16)
    assert text.dtype == text.pooled.dtype == torch.float16 and text.mask.dtype == torch.bool
    assert text_of(2).to(text).dtype == torch.float16


@pytest.mark.parametrize(("pooled", "mask"), [(True, True), (False, False), (True, False)])
def test_stored_tensors_are_the_text_again(pooled: bool, mask: bool) -> None:
    text = text_of(2, pooled=pooled, mask=mask)
    stored = text.tensors("null")
    assert len(stored) == 1 + pooled + mask
    found = Text.of_tensors(stored, "null")
    assert found is not None and found.equals(text) and not stored
    assert Text.of_tensors({}, "null") is None


def test_trainable_tensors_are_put_back_in_their_order() -> None:
    text = text_of(2)
    again = text.with_trainable([values + 1 for values in text.trainable])
    assert torch.equal(again.tokens, text.tokens + 1)
    assert torch.equal(again.pooled, text.pooled + 1) and again.mask is text.mask
