"""`attend_joint` against the materialised arithmetic, in float64, for both orders of the tokens.

The reference makes whole logits, edits them in place as flow.md's formulas say, and takes one
softmax over words and pixels together.
"""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.attention.joint import Projected, attend_joint
from understudy.attention.plan import (
    AttentionPlan,
    FeatureRequest,
    LogitMix,
    Recording,
    Segments,
    StoredRow,
)
from understudy.attention.site import AttentionSite

ROWS, HEADS, IMAGE, TEXT, REFERENCE, WIDTH = 3, 2, 12, 5, 4, 6
SCALE = WIDTH**-0.5
SITE = AttentionSite("blocks.0.attn", "joint", 0, "double", heads=HEADS, grid=(3, 4))
ORDERS = {
    "image first": replace(
        SITE, image=slice(0, IMAGE), text=slice(IMAGE, IMAGE + TEXT), reference=slice(17, 21)
    ),
    "text first": replace(
        SITE, text=slice(0, TEXT), image=slice(TEXT, TEXT + IMAGE), reference=slice(17, 21)
    ),
    "no reference": replace(SITE, image=slice(0, IMAGE), text=slice(IMAGE, IMAGE + TEXT)),
}
each_order = pytest.mark.parametrize("order", ORDERS)
SOURCE = (0, 0, 2)  # row 1 takes from row 0
MAPPER, WEIGHTS = (0, 2, -1, 1, 4), (1.0, 1.0, 1.0, 0.4, 0.0)
FACTORS = (0.0, log(0.5), 0.0, log(3.0), 0.0)


def given(order: str, **more) -> Projected:
    tokens = IMAGE + TEXT + (REFERENCE if order != "no reference" else 0)
    draws = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, ROWS, HEADS, tokens, WIDTH, generator=draws, dtype=torch.float64)
    return Projected(q, k, v, SCALE, **more)


def close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() < 1e-12


def materialised(parts: Projected, site: AttentionSite, swap: str) -> tuple[Tensor, Tensor]:
    """Result and map; row 1's image queries are swapped with row 0's, as `swap` says."""
    q, k, v = parts.query, parts.key, parts.value.clone()
    logits = q @ k.mT * SCALE
    image, text = site.image, site.text
    own = logits.clone()
    if swap in ("M", "phi"):
        logits[1, :, image, image] = own[0, :, image, image]
    if swap == "projection":
        logits[1, :, image] = (q[0, :, image] @ k[1].mT) * SCALE
        logits[1, :, image, image] = own[0, :, image, image]
    if swap == "A":
        for j in range(TEXT):
            column = text.start + j
            weight = WEIGHTS[j] if MAPPER[j] >= 0 else 0.0
            partner = own[0, :, image, text.start + max(MAPPER[j], 0)]
            mixed = (1 - weight) * own[1, :, image, column] + weight * partner
            logits[1, :, image, column] = mixed + FACTORS[j]
    if parts.mask is not None:
        logits = logits.masked_fill(~parts.mask[:, None, None, :], float("-inf"))
    maps = logits.softmax(-1)
    result = maps @ v
    if swap == "phi":
        values = v[1].clone()
        values[:, image] = v[0][:, image]
        result[1, :, image] = maps[1, :, image] @ values
    if swap == "output":
        result[1, :, image] = result[0, :, image]
    return result, maps


FROM = Segments(image=SOURCE)
PLANS = {
    "none": AttentionPlan(),
    "M": AttentionPlan(query_from=FROM, key_from=FROM),
    "phi": AttentionPlan(query_from=FROM, key_from=FROM, value_from=FROM),
    "projection": AttentionPlan(query_from=SOURCE, key_from=FROM),
    "A": AttentionPlan(words={1: LogitMix(0, MAPPER, WEIGHTS, FACTORS)}),
    "output": AttentionPlan(output_from=FROM),
}


@each_order
@pytest.mark.parametrize("swap", PLANS)
def test_every_swap_is_the_materialised_one(order: str, swap: str) -> None:
    site, parts = ORDERS[order], given(order)
    expected, maps = materialised(parts, site, swap)
    close(attend_joint(parts, site, PLANS[swap]), expected)
    assert (maps.sum(-1) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("swap", PLANS)
def test_masked_keys_are_not_read(swap: str) -> None:
    parts = given("text first")
    mask = torch.ones(ROWS, parts.key.shape[2], dtype=torch.bool)
    mask[:, TEXT - 1] = False
    parts, site = replace(parts, mask=mask), ORDERS["text first"]
    expected, _ = materialised(parts, site, swap)
    close(attend_joint(parts, site, PLANS[swap]), expected)


def test_a_swap_is_one_more_fused_call_and_text_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain rows, words of the swapped row, its image queries: no map, no loop over words."""
    calls: list[tuple[int, ...]] = []
    fused = F.scaled_dot_product_attention

    def counted(q, k, v, **how):
        calls.append(tuple(q.shape))
        return fused(q, k, v, **how)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    parts, site = given("no reference"), ORDERS["no reference"]
    for swap, width in (("M", 16), ("phi", 16), ("A", 16), ("projection", 8)):
        calls.clear()
        attend_joint(parts, site, PLANS[swap])
        tokens = IMAGE + TEXT
        assert calls == [(2, HEADS, tokens, WIDTH), (1, HEADS, TEXT, WIDTH),
                         (1, HEADS, IMAGE, width)]  # fmt: skip
    calls.clear()
    attend_joint(parts, site, None)
    assert calls == [(ROWS, HEADS, IMAGE + TEXT, WIDTH)]


def test_all_queries_follow_where_asked() -> None:
    site, parts = ORDERS["text first"], given("text first")
    everything = AttentionPlan(
        query_from=SOURCE, key_from=SOURCE, value_from=SOURCE, all_queries=True
    )
    found = attend_joint(parts, site, everything)
    plain = attend_joint(parts, site)
    close(found[1], plain[0])
    close(found[[0, 2]], plain[[0, 2]])


@each_order
def test_a_swap_with_itself_changes_nothing(order: str) -> None:
    site, parts = ORDERS[order], given(order)
    twin = Projected(*(x[[0, 0, 2]] for x in (parts.query, parts.key, parts.value)), scale=SCALE)
    same = LogitMix(0, tuple(range(TEXT)), (1.0,) * TEXT)
    plans = [PLANS["M"], PLANS["phi"], AttentionPlan(words={1: same})]
    for plan in plans:
        close(attend_joint(twin, site, plan), attend_joint(twin, site))


@each_order
@pytest.mark.parametrize("swap", ["M", "phi", "A"])
def test_recorded_maps_are_those_of_the_swap(order: str, swap: str) -> None:
    site, parts, seen = ORDERS[order], given(order), list[Tensor]()
    columns = tuple(range(site.text.start, site.text.stop))
    record = Recording((1, 0), columns, lambda site, maps: seen.append(maps))
    attend_joint(parts, site, replace(PLANS[swap], record=record))
    _, maps = materialised(parts, site, swap)
    close(seen[0], maps[[1, 0]][:, :, site.image, site.text])


@each_order
@pytest.mark.parametrize("swap", ["M", "phi", "projection", "output", "A"])
def test_a_stored_row_is_as_good_as_the_row(order: str, swap: str) -> None:
    site, parts, kept = ORDERS[order], given(order), dict[int, StoredRow]()
    features = FeatureRequest((0,), (0,), lambda site, rows: kept.update(rows))
    attend_joint(parts, site, AttentionPlan(features=features))
    expected, _ = materialised(parts, site, swap)
    alone = Projected(parts.query[1:2], parts.key[1:2], parts.value[1:2], SCALE)

    def moved(pointers):
        if isinstance(pointers, Segments):
            return Segments(image=(1,))
        return None if pointers is None else (1,)

    plan = PLANS[swap]
    plan = AttentionPlan(
        *(moved(p) for p in (plan.output_from, plan.query_from, plan.key_from, plan.value_from)),
        words=dict(enumerate(replace(mix, source_row=1) for mix in plan.words.values())),
        stored=(kept[0],),
    )
    close(attend_joint(alone, site, plan)[0], expected[1])


def test_gradients_flow_through_a_swap() -> None:
    site, parts = ORDERS["image first"], given("image first")
    keys = parts.key.clone().requires_grad_()
    attend_joint(replace(parts, key=keys), site, PLANS["M"])[1].sum().backward()
    assert keys.grad is not None and keys.grad[0].abs().max() > 0 and keys.grad[2].abs().max() == 0


@pytest.mark.parametrize(
    "plan",
    [
        AttentionPlan(query_from=(0, 1)),
        AttentionPlan(key_from=Segments(image=(0, 1, 7))),
        AttentionPlan(output_from=(1, 2, 2)),
        AttentionPlan(words={1: LogitMix(9, MAPPER, WEIGHTS)}),
        AttentionPlan(words={1: LogitMix(0, (0, 1), (1.0, 1.0))}),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan: AttentionPlan) -> None:
    with pytest.raises(ValueError, match="row|words"):
        attend_joint(given("image first"), ORDERS["image first"], plan)


def with_identity(parts: Projected, site: AttentionSite, rows: tuple[int, ...]) -> Tensor:
    """Image queries of these rows read themselves and what is not of the image, in one softmax."""
    logits = parts.query @ parts.key.mT * SCALE
    for row in rows:
        among = logits[row, :, site.image, site.image]
        others = ~torch.eye(IMAGE, dtype=torch.bool)
        logits[row, :, site.image, site.image] = among.masked_fill(others, float("-inf"))
    if parts.mask is not None:
        logits = logits.masked_fill(~parts.mask[:, None, None, :], float("-inf"))
    return logits.softmax(-1) @ parts.value


@each_order
@pytest.mark.parametrize("rows", [(2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("everything", [False, True])
def test_an_identity_row_reads_itself_and_the_words(
    order: str, rows: tuple[int, ...], everything: bool
) -> None:
    site, parts = ORDERS[order], given(order)
    plan = AttentionPlan(identity=rows, all_queries=everything)
    close(attend_joint(parts, site, plan), with_identity(parts, site, rows))


def test_an_identity_row_reads_no_masked_word() -> None:
    site, parts = ORDERS["text first"], given("text first")
    mask = torch.ones(ROWS, parts.key.shape[2], dtype=torch.bool)
    mask[1:, TEXT - 2 : TEXT] = False
    parts = replace(parts, mask=mask)
    plan = AttentionPlan(identity=(0, 2))
    close(attend_joint(parts, site, plan), with_identity(parts, site, (0, 2)))


def test_an_identity_row_of_the_image_alone_gives_its_values() -> None:
    """The second attention of SD 3.5 medium and the refiners of Z-Image."""
    site = replace(SITE, kind="self", image=slice(0, IMAGE))
    parts = Projected(*(x[:, :, :IMAGE] for x in _parts(given("no reference"))), scale=SCALE)
    found = attend_joint(parts, site, AttentionPlan(identity=(1,)))
    assert torch.equal(found[1], parts.value[1])
    close(found[[0, 2]], attend_joint(parts, site)[[0, 2]])


def _parts(parts: Projected) -> tuple[Tensor, Tensor, Tensor]:
    return parts.query, parts.key, parts.value


def test_the_own_logit_keeps_its_precision_in_half() -> None:
    """A logit of 20 in bfloat16 is off by up to 0.06; the own key would get 6 % more or less."""
    site, exact = ORDERS["image first"], given("image first")
    half = [x.to(torch.bfloat16) for x in _parts(exact)]
    half[0] = half[0] * 6
    plan = AttentionPlan(identity=(0,))
    rounded = Projected(*(x.double() for x in half), scale=SCALE)
    expected = with_identity(rounded, site, (0,))
    found = attend_joint(Projected(*half, scale=SCALE), site, plan)
    assert (found.double() - expected)[0].abs().max() < 0.02


@pytest.mark.parametrize(
    "plan",
    [
        AttentionPlan(identity=(1,), value_from=FROM),
        AttentionPlan(identity=(1,), words={1: LogitMix(0, MAPPER, WEIGHTS, FACTORS)}),
        AttentionPlan(identity=(1,), hidden={1: torch.zeros(IMAGE, dtype=torch.bool)}),
        AttentionPlan(identity=(1,), record=Recording((1,), None, print)),
    ],
)
def test_a_row_with_an_identity_takes_nothing_else(plan: AttentionPlan) -> None:
    with pytest.raises(ValueError, match="identity"):
        attend_joint(given("image first"), ORDERS["image first"], plan)
