"""DreamBooth of cross-attention alone, and of the identifier's embedding: what trains."""

from __future__ import annotations

import pytest
import torch

from test_learn import assert_no_trace, photos, weights
from test_learn_methods import QUICK, learnt
from tiny import tiny_model
from tiny_flow import tiny_flow
from understudy.errors import InputError
from understudy.learn import Subject, learn_steps
from understudy.learn.dreambooth import whole_model
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.models.word_tables import root_mean_square, word_tables
from understudy.settings import LearnSettings


def table_name(model: StableDiffusion) -> str:
    return word_tables(model)["text_encoder"].name


def test_cross_attention_alone_trains() -> None:
    model = tiny_model()
    before = weights(model)
    whole, crossing = (
        set(learnt(model, trained_layers=layers, train_text_encoder=False).tensors)
        for layers in ("all", "cross-attention")
    )
    assert crossing == {name for name in whole if ".attn2." in name}
    assert 0 < len(crossing) < len(whole)
    assert_no_trace(model, before)


def test_the_text_encoder_trains_beside_cross_attention() -> None:
    names = set(learnt(tiny_model(), trained_layers="cross-attention").tensors)
    assert any(name.startswith("text_encoder.") for name in names)
    assert all(".attn2." in name for name in names if name.startswith("unet."))


@pytest.mark.parametrize("trains_text", [True, False])
def test_only_the_identifiers_row_of_the_table_trains_at_its_own_rate(trains_text: bool) -> None:
    """AdamW's first step moves each number by the rate, so the size of the change is the rate."""
    model = tiny_model()
    table = word_tables(model)["text_encoder"]
    concept = learnt(
        model, steps=1, average=0.0, embedding_rate=0.5, train_text_encoder=trains_text
    )
    change = concept.tensors[table.name].float()
    (row,) = table.ids(concept.identifier)
    others = torch.arange(len(change)) != row
    assert not change[others].any()
    size = torch.full_like(change[row], 0.5 * root_mean_square(table.table))
    torch.testing.assert_close(change[row].abs(), size, rtol=2e-3, atol=0)
    own = [
        name for name in concept.tensors if name.startswith("text_encoder.") and name != table.name
    ]
    assert bool(own) is trains_text, "other weights of the text encoder are trained if wanted"


def test_without_a_rate_of_its_own_the_whole_table_trains_as_other_weights_do() -> None:
    model = tiny_model()
    change = learnt(model, steps=1, average=0.0).tensors[table_name(model)].float()
    assert change.any(dim=1).sum() > 1
    assert change.abs().max() <= 1.01 * QUICK["learning_rate"]


def test_hooks_are_gone_after_learning() -> None:
    """A later learning in the same process trains the whole table again."""
    model = tiny_model()
    learnt(model, steps=1, embedding_rate=0.5)
    change = learnt(model, steps=1).tensors[table_name(model)]
    assert change.any(dim=1).sum() > 1


def test_a_network_without_cross_attention_is_refused() -> None:
    model = tiny_flow()
    settings = LearnSettings.filled(
        {**QUICK, "prior_samples": 0, "trained_layers": "cross-attention"}
    )
    side = model.picture_size[0]
    with pytest.raises(InputError, match="--trained-layers all"):
        list(learn_steps(model, Subject("rex", "cat", photos(2, side)), settings=settings))


def test_a_text_encoder_without_word_tables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> dict[str, object]:
        return {}

    monkeypatch.setattr("understudy.learn.dreambooth.word_tables", none)
    with (
        pytest.raises(InputError, match="--embedding-rate 0"),
        whole_model(tiny_model(), train_text=True, identifiers=["sks"], share=0.5),
    ):
        pass
