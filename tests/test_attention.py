"""`attend` against the slow, materialised arithmetic of the papers."""

from dataclasses import replace

import pytest
import torch

from understudy.attention.attend import attend
from understudy.attention.plan import AttentionPlan, CrossMix, Recording, Segments, StoredRow
from understudy.attention.projections import Projections
from understudy.attention.site import AttentionSite

HEADS, WIDTH, QUERIES, TOKENS, ROWS = 2, 8, 9, 5, 4
CROSS = AttentionSite("a.attn2", "cross", 1, "mid", heads=HEADS, grid=(3, 3))
SELF = replace(CROSS, name="a.attn1", kind="self")


class Layer:
    """Four random matrices, counting the rows each was asked for."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(4, WIDTH, WIDTH, generator=generator, dtype=torch.float64)
        self.rows = [0, 0, 0, 0]
        parts = [self._part(index) for index in range(4)]
        self.projections = Projections(*parts, heads=HEADS, scale=(WIDTH / HEADS) ** -0.5)

    def _part(self, index):
        def project(x):
            self.rows[index] += x.shape[0]
            return x @ self.weights[index]

        return project

    def heads(self, x, index):
        return (x @ self.weights[index]).unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def reference(self, features, context, edit=lambda maps, v: (maps, v)):
        """Plain attention with the maps in the open: edit(maps, values) may change anything."""
        q, k, v = (self.heads(x, i) for i, x in enumerate((features, context, context)))
        maps = (q @ k.mT * self.projections.scale).softmax(-1)
        maps, v = edit(maps.clone(), v.clone())
        return (maps @ v).transpose(1, 2).flatten(2) @ self.weights[3], maps


@pytest.fixture
def layer():
    return Layer()


@pytest.fixture
def features():
    return torch.randn(ROWS, QUERIES, WIDTH, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def context():
    return torch.randn(ROWS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(2)).double()


def close(a, b):
    assert a.shape == b.shape
    assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("plan", [None, AttentionPlan()])
def test_without_a_plan_attention_is_plain(layer, features, context, plan):
    expected, _ = layer.reference(features, context)
    close(attend(features, context, layer.projections, CROSS, plan), expected)


def test_output_from_computes_only_the_rows_it_needs(layer, features):
    def edit(maps, v):
        for target, source in ((1, 0), (3, 2)):
            maps[target], v[target] = maps[source], v[source]
        return maps, v

    expected, _ = layer.reference(features, features, edit)
    plan = AttentionPlan(output_from=(0, 0, 2, 2))
    close(attend(features, features, layer.projections, SELF, plan), expected)
    assert layer.rows == [2, 2, 2, 2]


def test_map_from_keeps_the_values(layer, features):
    def edit(maps, v):
        maps[3] = maps[2]
        return maps, v

    expected, _ = layer.reference(features, features, edit)
    plan = AttentionPlan.maps((0, 1, 2, 2))
    close(attend(features, features, layer.projections, SELF, plan), expected)
    assert layer.rows == [3, 3, 4, 4]


MAPPER, ALPHAS = [0, 1, -1, 2, 2], [1.0, 0.5, 0.0, 0.25, 1.0]


def mixed(maps, v):
    alphas = torch.tensor(ALPHAS, dtype=torch.float64)
    maps[3] = maps[2][..., MAPPER] * alphas + maps[3] * (1 - alphas)
    return maps, v


def test_cross_mix_equals_the_mixed_map(layer, features, context):
    expected, _ = layer.reference(features, context, mixed)
    mix = CrossMix.aligned(2, MAPPER, ALPHAS, dtype=torch.float64)
    plan = AttentionPlan(cross={3: mix})
    close(attend(features, context, layer.projections, CROSS, plan), expected)


def test_cross_mix_that_keeps_nothing_needs_one_attention(layer, features, context):
    def edit(maps, v):
        maps[3] = maps[2][..., [0, 2, 1, 3, 4]]
        return maps, v

    expected, _ = layer.reference(features, context, edit)
    mix = CrossMix.aligned(2, [0, 2, 1, 3, 4], [1.0] * TOKENS, dtype=torch.float64)
    assert mix.own is None
    plan = AttentionPlan(cross={3: mix})
    close(attend(features, context, layer.projections, CROSS, plan), expected)
    assert layer.rows[0] == 3


def test_a_cross_mix_that_shares_nothing_changes_nothing(layer, features, context):
    expected, _ = layer.reference(features, context)
    mix = CrossMix.aligned(2, [-1] * TOKENS, [1.0] * TOKENS, dtype=torch.float64)
    plan = AttentionPlan(cross={3: mix})
    close(attend(features, context, layer.projections, CROSS, plan), expected)


@pytest.mark.parametrize("columns", [None, (1, 3)])
def test_recording_sees_the_maps_after_the_swap(layer, features, context, columns):
    expected, maps = layer.reference(features, context, mixed)
    seen = []
    plan = AttentionPlan(
        cross={3: CrossMix.aligned(2, MAPPER, ALPHAS, dtype=torch.float64)},
        record=Recording((2, 3), columns, lambda site, maps: seen.append((site, maps))),
    )
    close(attend(features, context, layer.projections, CROSS, plan), expected)
    [(site, recorded)] = seen
    assert site is CROSS
    close(recorded, maps[2:4] if columns is None else maps[2:4][..., list(columns)])


def test_gradients_flow_through_a_plan(layer, features, context):
    context = context.requires_grad_()
    plan = AttentionPlan(cross={3: CrossMix.aligned(2, MAPPER, ALPHAS, dtype=torch.float64)})
    attend(features, context, layer.projections, CROSS, plan).sum().backward()
    fused = context.grad.clone()
    context.grad = None
    layer.reference(features, context, mixed_without_writes)[0].sum().backward()
    close(fused, context.grad)


def mixed_without_writes(maps, v):
    alphas = torch.tensor(ALPHAS, dtype=torch.float64)
    row = maps[2][..., MAPPER] * alphas + maps[3] * (1 - alphas)
    return torch.stack([maps[0], maps[1], maps[2], row]), v


@pytest.mark.parametrize(
    ("site", "plan"),
    [
        (SELF, AttentionPlan(output_from=(0, 0))),
        (SELF, AttentionPlan.maps((0, 1, 2, 4))),
        (SELF, AttentionPlan(output_from=(1, 2, 2, 2))),
        (SELF, AttentionPlan(cross={1: CrossMix.aligned(0, [0], [1.0])})),
        (CROSS, AttentionPlan(cross={1: CrossMix.aligned(7, [0], [1.0])})),
        (CROSS, AttentionPlan(record=Recording((5,), None, lambda site, maps: None))),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(layer, features, site, plan):
    with pytest.raises(ValueError, match="row|CrossMix"):
        attend(features, features, layer.projections, site, plan)


def test_mapper_and_weights_must_be_equally_long():
    with pytest.raises(ValueError, match="equally long"):
        CrossMix.aligned(0, [0, 1], [1.0])


def test_queries_keys_and_values_come_from_rows_of_their_own(layer, features, context):
    """query_from, key_from and value_from are independent of each other."""
    queries, keys, values = (1, 1, 2, 0), (0, 2, 2, 3), (3, 1, 0, 0)
    q, k, v = (layer.heads(x, i) for i, x in enumerate((features, context, context)))
    maps = (q[list(queries)] @ k[list(keys)].mT * layer.projections.scale).softmax(-1)
    expected = (maps @ v[list(values)]).transpose(1, 2).flatten(2) @ layer.weights[3]
    plan = AttentionPlan(query_from=queries, key_from=keys, value_from=values)
    close(attend(features, context, layer.projections, CROSS, plan), expected)


def test_values_of_a_stored_row_are_read(layer, features, context):
    value = context[2] @ layer.weights[2]
    plan = AttentionPlan(value_from=(0, 4, 2, 3), stored=(StoredRow(value=value),))
    whole = AttentionPlan(value_from=(0, 2, 2, 3))
    close(
        attend(features, context, layer.projections, CROSS, plan),
        attend(features, context, layer.projections, CROSS, whole),
    )


def test_segments_are_for_joint_layers(layer, features):
    with pytest.raises(ValueError, match="segments"):
        attend(
            features,
            features,
            layer.projections,
            SELF,
            AttentionPlan(query_from=Segments(image=(0, 1, 2, 2))),
        )


@pytest.mark.parametrize("rows", [(3,), (2, 3), (0, 1, 2, 3), (1,)])
def test_an_identity_row_gives_its_values(layer, features, rows):
    """Perturbed-attention guidance: softmax(q k^T) replaced by the identity matrix."""

    def edit(maps, v):
        maps[list(rows)] = torch.eye(QUERIES, dtype=torch.float64)
        return maps, v

    expected, _ = layer.reference(features, features, edit)
    plan = AttentionPlan(identity=rows)
    close(attend(features, features, layer.projections, SELF, plan), expected)
    mapped = ROWS - len(rows)
    assert layer.rows == [mapped, mapped, ROWS, ROWS]  # no queries and keys for the others


def test_an_identity_row_may_have_other_values(layer, features):
    def edit(maps, v):
        maps[3], v[3] = torch.eye(QUERIES, dtype=torch.float64), v[1]
        return maps, v

    expected, _ = layer.reference(features, features, edit)
    plan = AttentionPlan(value_from=(0, 1, 2, 1), identity=(3,))
    close(attend(features, features, layer.projections, SELF, plan), expected)


@pytest.mark.parametrize(
    ("plan", "site", "says"),
    [
        (AttentionPlan(identity=(1,)), CROSS, "needs a self-attention"),
        (AttentionPlan(identity=(4,)), SELF, "computed rows"),
        (AttentionPlan(identity=(1,), output_from=(0, 0, 2, 3)), SELF, "computed rows"),
        (AttentionPlan(identity=(1,), record=Recording((1,), None, print)), SELF, "no map"),
    ],
)
def test_an_identity_that_cannot_be_is_refused(layer, features, plan, site, says):
    with pytest.raises(ValueError, match=says):
        attend(features, features, layer.projections, site, plan)
