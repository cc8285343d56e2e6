"""Pivotal tuning on flow models: words in every text encoder, then a LoRA; its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from test_flow_learn import photos
from tiny_flow import tiny_flow, tiny_flow_folder
from understudy import cli
from understudy.concept import Concept, applied
from understudy.concept.exchange import export_concept, import_concept
from understudy.errors import ConceptError, InputError
from understudy.generate import generate
from understudy.learn import Subject, learn, learn_steps
from understudy.learn.identifier import is_whole, spare_words
from understudy.learn.textual_inversion import new_words
from understudy.models.word_tables import word_tables
from understudy.settings import GenerateSettings, LearnSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
TABLES = {
    "sd35": ["text_encoder", "text_encoder_2", "text_encoder_3"],
    "sd3": ["text_encoder", "text_encoder_2"],
    "flux": ["text_encoder", "text_encoder_2"],
    "chroma": ["text_encoder"],
}


def settings(kind: str, **more) -> LearnSettings:
    told = {"method": "pivotal", "steps": 4, "prior_samples": 0, "learning_rate": 1e-2,
            "save_every": 0, "rank": 2, **more}  # fmt: skip
    return LearnSettings.filled(told, str(tiny_flow_folder(kind)))


def learnt(kind: str, **more) -> Concept:
    model = tiny_flow(kind)
    return learn(model, photos(1), name="rex", class_noun="dog", settings=settings(kind, **more))


def parts(concept: Concept, end: str) -> set[str]:
    return {name.split(".")[0] for name in concept.tensors if name.endswith(end)}


@pytest.mark.parametrize("kind", TABLES)
def test_words_and_lora_are_learnt_and_the_model_stays(kind: str, tmp_path: Path) -> None:
    model = tiny_flow(kind)
    before = {name: value.clone() for net in model.networks.values()
              for name, value in net.state_dict().items()}  # fmt: skip
    rex = learn(model, photos(1), name="rex", class_noun="dog", settings=settings(kind))
    after = {name: value for net in model.networks.values()
             for name, value in net.state_dict().items()}  # fmt: skip
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert parts(rex, ".rows") == set(TABLES[kind]) and parts(rex, ".lora_B") == {"transformer"}
    assert rex.phrase == rex.identifier and len(rex.identifier.split()) == 2
    # Rows stand where each encoder reads the words, and have moved from where they began.
    for own in word_tables(model).values():
        assert rex.tensors[f"{own.name}.ids"].tolist() == list(own.ids(rex.identifier))
        start = own.table.weight[list(own.ids("dog"))].expand(2, -1)
        assert (rex.tensors[f"{own.name}.rows"] - start).abs().max() > 0
    assert max(t.abs().max() for n, t in rex.tensors.items() if n.endswith("lora_B")) > 0
    rex.save(tmp_path / "rex")
    again = Concept.load(tmp_path / "rex")
    assert again.kind == "pivotal" and again.phrase == rex.phrase
    assert all(torch.equal(again.tensors[name], one) for name, one in rex.tensors.items())
    # Every encoder reads the learnt rows; the unlearnt words are as they were.
    said, other = model.embed([f"a {rex.phrase}"]), model.embed(["a photo of a cat"])
    with applied(model, again):
        assert not torch.equal(model.embed([f"a {rex.phrase}"]).tokens, said.tokens)
        assert model.embed(["a photo of a cat"]).equals(other)
        how = GenerateSettings.filled({"steps": 2}, str(tiny_flow_folder(kind)))
        drawn = generate(model, ["a photo of {rex}"], [0], how, concepts=(again,))
    assert drawn.isfinite().all() and model.embed([f"a {rex.phrase}"]).equals(said)


def test_words_train_first_and_the_lora_after() -> None:
    """By steps: the rows of a shorter run of words alone are those of the whole run."""
    first = learnt("flux", pivot=1.0, steps=2)
    whole = learnt("flux", pivot=0.5, steps=4)
    late = learnt("flux", pivot=0.0, steps=4)
    assert all(torch.equal(whole.tensors[n], one) for n, one in first.tensors.items()
               if n.endswith(".rows"))  # fmt: skip
    moved = {n: one for n, one in first.tensors.items() if n.endswith("lora_B")}
    assert moved and not any(one.any() for one in moved.values())
    assert all(whole.tensors[name].any() for name in moved)
    for own in word_tables(tiny_flow("flux")).values():
        start = own.table.weight[list(own.ids("dog"))].expand(2, -1)
        assert torch.equal(late.tensors[f"{own.name}.rows"], start)


@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_run_is_bit_equal(at: int, tmp_path: Path) -> None:
    """Stopped among the words' steps, and among the LoRA's."""
    how = settings("flux", save_every=1)
    subject = Subject("rex", "dog", photos(1))
    whole = learnt("flux")
    steps = learn_steps(tiny_flow("flux"), subject, settings=how, run=tmp_path / "run")
    for step in steps:
        if step.phase == "train" and step.index + 1 >= at:
            break
    steps.close()
    *_, last = learn_steps(
        tiny_flow("flux"), subject, settings=how, run=tmp_path / "run", resume=True
    )
    assert last.concept is not None
    assert all(torch.equal(last.concept.tensors[n], one) for n, one in whole.tensors.items())


def test_rates_are_in_units_of_each_table() -> None:
    model = tiny_flow("sd35")
    tables = word_tables(model)
    with torch.no_grad():
        tables["text_encoder_3"].table.weight.mul_(100)
    sizes = {f"{own.name}.rows": own.table.weight.float().square().mean().sqrt().item()
             for own in tables.values()}  # fmt: skip
    word = spare_words(model, 1)[-1]
    with new_words(model, [(word, "dog")], share=0.03) as shared:
        assert shared.rates == pytest.approx({n: 0.03 * size for n, size in sizes.items()})
    # Textual Inversion: the published rate for CLIP, T5's by the size of its numbers.
    clip, _, t5 = sizes
    with new_words(model, [(word, "dog")], rate=5e-4) as plain:
        assert plain.rates == pytest.approx({t5: 5e-4 * sizes[t5] / sizes[clip]})
    with new_words(tiny_flow("sd3"), [(word, "dog")], rate=5e-4) as plain:
        assert plain.rates == {}


def test_gradients_reach_the_rows_of_every_encoder() -> None:
    model = tiny_flow("sd35")
    word = spare_words(model, 1)[-1]
    with new_words(model, [(word, "dog")]) as trainable:
        text = trainable.embed([f"a photo of a {word}"])
        (text.tokens.square().sum() + text.pooled.square().sum()).backward()
        found = {name: p.grad for name, p in trainable.parameters.items()}
    assert len(found) == 3 and all(g is not None and g.abs().max() > 0 for g in found.values())


def test_where_encoders_come_and_go_the_text_follows_the_rows() -> None:
    model = tiny_flow("flux", memory="parts")
    word = spare_words(model, 1)[-1]
    with new_words(model, [(word, "dog")]) as trainable, torch.no_grad():
        before = trainable.embed([f"a {word}"])
        for row in trainable.parameters.values():
            row.add_(1.0)
        assert not torch.equal(trainable.embed([f"a {word}"]).tokens, before.tokens)


@pytest.mark.parametrize("kind", ["sd35", "flux", "chroma"])
def test_identifiers_are_one_token_everywhere(kind: str) -> None:
    model = tiny_flow(kind)
    words = spare_words(model, 2)
    assert len(words) >= 2 and all(is_whole(model, word) for word in words)
    with pytest.raises(InputError, match="--identifier must be one token of"):
        learn(model, photos(1), name="rex", class_noun="dog", identifier="qqzzqx",
              settings=settings(kind, vectors=1))  # fmt: skip


@pytest.mark.parametrize("kind", ["qwen", "zimage", "klein"])
@pytest.mark.parametrize("method", ["pivotal", "textual-inversion"])
def test_language_models_are_refused(kind: str, method: str) -> None:
    with pytest.raises(InputError, match=r"is a language model, whose words are not learnt"):
        learn(tiny_flow(kind), photos(1), name="rex", class_noun="dog",
              settings=settings(kind, method=method))  # fmt: skip


# Files of other programs.

FILES = {
    # format, kind -> names of the words' tensors, in the LoRA file or beside it
    ("lora", "flux"): {"clip_l", "t5"},
    ("lora", "sd35"): {"clip_l", "clip_g", "t5"},
    ("comfyui", "flux"): {"clip_l", "t5xxl"},
    ("kohya", "flux"): {"bundle_emb.rex.clip_l", "bundle_emb.rex.t5xxl"},
    ("kohya", "sd3"): {"bundle_emb.rex.clip_l", "bundle_emb.rex.clip_g"},
}


@pytest.mark.parametrize(("format", "kind"), FILES)
def test_both_halves_go_out_and_come_in(format: str, kind: str, tmp_path: Path) -> None:
    model, rex = tiny_flow(kind), learnt(kind)
    out = tmp_path / "rex.safetensors"
    done = export_concept(model, rex, out, format, dtype=torch.float32)
    beside = tmp_path / "rex_emb.safetensors"
    assert done.words == (None if format == "kohya" else beside)
    names = set(load_file(out if format == "kohya" else beside))
    assert {n for n in names if not n.startswith("lora_")} == FILES[format, kind]
    again = import_concept(model, out)
    assert again.kind == "pivotal" and again.phrase == rex.phrase
    assert "left_out" not in again.record
    x = torch.randn(1, model.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))

    def answer(concept: Concept) -> torch.Tensor:
        with applied(model, concept), torch.no_grad():
            return model.predict(x, 0.6, model.embed([f"a photo of {concept.phrase}"]))

    for name, one in rex.tensors.items():
        if name.endswith((".rows", ".ids")):
            assert torch.equal(again.tensors[name], one)
    assert torch.allclose(answer(again), answer(rex), atol=1e-6)


@pytest.mark.parametrize("kind", TABLES)
def test_words_alone_go_out_and_come_in(kind: str, tmp_path: Path) -> None:
    model = tiny_flow(kind)
    rex = learnt(kind, method="textual-inversion", steps=1, vectors=2)
    out = tmp_path / "rex.safetensors"
    export_concept(model, rex, out, "embedding", dtype=torch.float32)
    wanted = {"sd35": {"clip_l", "clip_g", "t5xxl"}, "sd3": {"clip_l", "clip_g"},
              "flux": {"clip_l", "t5xxl"}, "chroma": {"t5xxl"}}  # fmt: skip
    assert set(load_file(out)) == wanted[kind]
    again = import_concept(model, out)
    assert again.phrase == rex.phrase
    assert all(torch.equal(again.tensors[n], one) for n, one in rex.tensors.items())


def test_diffusers_two_files_come_in_by_the_command(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger's LoRA with its _emb file: the rows are put on rare words, in every encoder."""
    model = tiny_flow("flux")
    width = model.network.module.transformer_blocks[0].attn.to_q.in_features
    stem = "transformer.transformer_blocks.0.attn.to_q"
    a, b = torch.randn(2, width), torch.randn(width, 2)
    pair = {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    save_file(pair, here / "toy.safetensors")
    tables = word_tables(model)
    rows = {label: torch.randn(2, own.table.weight.shape[1])
            for label, own in zip(("clip_l", "t5"), tables.values(), strict=True)}  # fmt: skip
    save_file(rows, here / "toy_emb.safetensors")
    told = ["concept", "import", "toy.safetensors", "--name", "toy", "--class", "dog",
            "--model", str(tiny_flow_folder("flux"))]  # fmt: skip
    assert cli.main(told) == 0, capsys.readouterr().err
    toy = Concept.load(here / "concepts" / "toy")
    assert toy.kind == "pivotal" and len(toy.phrase.split()) == 2
    for label, own in zip(("clip_l", "t5"), tables.values(), strict=True):
        assert torch.equal(toy.tensors[f"{own.name}.rows"], rows[label])
        assert toy.tensors[f"{own.name}.ids"].tolist() == list(own.ids(toy.identifier))


def test_embeddings_of_another_family_are_refused(tmp_path: Path) -> None:
    model = tiny_flow("sd35")
    words = tuple(spare_words(model, 1)[-1:])
    tables = word_tables(model)
    small, large, t5 = (torch.randn(1, own.table.weight.shape[1]) for own in tables.values())
    save_file({"clip_l": small, "t5": t5}, tmp_path / "flux.safetensors")
    with pytest.raises(ConceptError, match="two text encoders, this one has three"):
        import_concept(model, tmp_path / "flux.safetensors", words=words)
    save_file({"t5": t5, "t5xxl": t5.clone()}, tmp_path / "twice.safetensors")
    with pytest.raises(ConceptError, match="names a text encoder twice"):
        import_concept(model, tmp_path / "twice.safetensors", words=words)
    # CLIP's rows alone will do: T5 then reads the rare word as it is.
    save_file({"clip_l": small, "clip_g": large}, tmp_path / "xl.safetensors")
    found = import_concept(model, tmp_path / "xl.safetensors", name="x", words=words)
    assert parts(found, ".rows") == {"text_encoder", "text_encoder_2"}
