from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from core.errors import BadData
from tests.training.material import Row, spec, texts, tiny_bert, write_arrow
from training import tuning
from training.failures import ModelUnavailable
from training.sequences import Sequences
from training.tasks.text_classification import TextClassification


def load(folder: Path, **changes: Any) -> tuple[TextClassification, Any]:
    task = TextClassification(spec(**changes), lambda message: None)
    return task, task.load(folder, exact=False)


def read(task: TextClassification, path: Path, rows: list[Row]) -> Sequences:
    return task.read(write_arrow(path / "rows.arrow", rows), "training_file", lambda: None)


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_bf16_checkpoint_is_trained_in_fp32(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "half", dtype=torch.bfloat16)
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    _, model = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_weights_lie_in_memory_of_their_own_as_every_tensor_does(tmp_path: Path) -> None:
    """In their file they would begin anywhere, and products may add in another order by that: a run
    that goes on from a checkpoint would end in other bits."""
    folder = tiny_bert(tmp_path / "base")
    for _ in range(2):
        task, _ = load(folder)
        model = tuning.load(task, folder, None)
        assert {tensor.data_ptr() % 64 for tensor in model.parameters()} == {0}
        folder = tmp_path / "checkpoint"
        task.save(model, folder)


def test_labels_are_the_specs_in_order_and_the_head_is_drawn_from_the_seed(
    tiny_model: Path,
) -> None:
    labels = ["anger", "joy", "sorrow"]
    _, model = load(tiny_model, labels=labels)
    assert model.config.id2label == {0: "anger", 1: "joy", 2: "sorrow"}
    assert model.config.label2id == {"anger": 0, "joy": 1, "sorrow": 2}
    assert model.config.num_labels == model.classifier.out_features == 3
    assert model.config.problem_type == "single_label_classification"
    again, other = load(tiny_model, labels=labels)[1], load(tiny_model, labels=labels, seed=8)[1]
    assert torch.equal(model.classifier.weight, again.classifier.weight)
    assert not torch.equal(model.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize(
    ("labels", "kept"),
    [(["no", "yes"], True), (["bad", "good"], False), (["a", "b", "c"], False)],
)
def test_a_trained_head_stays_only_if_its_labels_do(
    tiny_model: Path, tmp_path: Path, labels: list[str], kept: bool
) -> None:
    task, model = load(tiny_model, labels=["no", "yes"])
    with torch.no_grad():
        model.classifier.weight.fill_(3.0)
    task.save(model, tmp_path)
    _, again = load(tmp_path, labels=labels)
    assert again.classifier.out_features == len(labels)
    assert again.config.id2label == dict(enumerate(labels))
    assert bool((again.classifier.weight == 3.0).all()) is kept
    assert torch.equal(again.bert.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_a_head_whose_labels_stand_in_another_order_is_not_taken(
    tiny_model: Path, tmp_path: Path
) -> None:
    task, model = load(tiny_model)
    with torch.no_grad():
        model.classifier.weight.fill_(3.0)
    task.save(model, tmp_path)
    edit(tmp_path, "config.json", id2label={"0": "positive", "1": "negative"})
    _, again = load(tmp_path)
    assert not (again.classifier.weight == 3.0).any()


def test_rows_become_the_tokens_that_transformers_makes(tiny_model: Path, tmp_path: Path) -> None:
    task, model = load(tiny_model)
    rows: list[Row] = [
        (2, "the movie was great", None, "positive"),
        (3, "the plot", "a very dull story with music", "negative"),
        (5, "[PAD] scene", None, "negative"),
    ]
    examples = read(task, tmp_path, rows)
    assert examples.ids.tolist() == [2, 3, 5]
    assert examples.targets.tolist() == [1, 0, 0]
    batch = task.collate(examples, np.array([1, 0, 2]))
    for place, row in enumerate((rows[1], rows[0], rows[2])):
        theirs = task.tokenizer(row[1], row[2], return_tensors="pt")
        size = theirs["input_ids"].shape[1]
        for name, matrix in batch.inputs.items():
            assert torch.equal(matrix[place, :size], theirs[name][0]), name
            # A padding token within a text is a token; what follows the text is not.
            assert int(batch.inputs["attention_mask"][place].sum()) == size
    assert batch.tokens == int(batch.inputs["attention_mask"].sum())
    assert batch.inputs["token_type_ids"].any()
    with torch.no_grad():
        alone = model.eval()(**task.tokenizer(rows[2][1], return_tensors="pt")).logits
        together = model(**batch.inputs).logits[2:]
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)


def test_padding_goes_where_the_tokenizer_wants_it(tiny_model: Path, tmp_path: Path) -> None:
    task, _ = load(tiny_model)
    task.tokenizer.padding_side = "left"
    examples = read(task, tmp_path, texts(5))
    batch = task.collate(examples, np.arange(5))
    theirs = task.tokenizer([row[1] for row in texts(5)], padding=True, return_tensors="pt")
    assert torch.equal(batch.inputs["input_ids"], theirs["input_ids"])
    assert torch.equal(batch.inputs["attention_mask"], theirs["attention_mask"])


@pytest.mark.parametrize(("chosen", "longest"), [(8, 8), (None, 64), (5000, 64)])
def test_rows_are_cut_where_the_model_or_the_user_ends(
    tiny_model: Path, tmp_path: Path, chosen: int | None, longest: int
) -> None:
    said: list[str] = []
    task = TextClassification(spec(max_length=chosen), said.append)
    task.load(tiny_model, exact=False)
    long = [*texts(3), (9, "the movie " * 100, None, "negative")]
    examples = read(task, tmp_path, long)
    assert examples.lengths.max() == longest
    assert f"all {longest} tokens" in said[-1]
    assert "training_file" in said[-1]


def test_rows_that_cannot_be_trained_on_are_named(tiny_model: Path, tmp_path: Path) -> None:
    task, _ = load(tiny_model)
    rows = [*texts(3), (7, "the movie", None, "mixed"), (9, "a film", None, None)]
    with pytest.raises(BadData) as caught:
        read(task, tmp_path, rows)
    assert caught.value.details == [{"row": 7}, {"row": 9}]
    assert caught.value.param == "training_file"
    with pytest.raises(BadData, match="no rows"):
        read(task, tmp_path, [])
    task.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(BadData) as caught:
        read(task, tmp_path, [*texts(2), (3, "  ", None, "negative")])
    assert caught.value.details == [{"row": 3}]


def test_nothing_that_names_code_or_this_machine_is_handed_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny_model.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    code = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    edit(base, "config.json", auto_map=code, attn_implementation="someone/kernel")
    edit(base, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    (base / "evil.py").write_text("raise SystemExit('ran')")
    task, model = load(base)
    out = tmp_path / "out"
    read(task, tmp_path, texts(4))  # switches truncation on in the tokenizer
    task.save(model, out)
    for path in out.glob("*.json"):
        text = path.read_text()
        assert "auto_map" not in text
        assert "someone/kernel" not in text
        assert str(tmp_path) not in text
    assert json.loads((out / "tokenizer.json").read_text())["truncation"] is None
    assert model.config._attn_implementation == "sdpa"


def test_models_that_cannot_be_trained_are_refused_with_the_reason(
    tiny_model: Path, tmp_path: Path
) -> None:
    def altered(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in tiny_model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    unknown = altered("unknown")
    edit(unknown, "config.json", model_type="from-the-future")
    wrong_kind = altered("vit")
    edit(wrong_kind, "config.json", model_type="vit")
    pickled = altered("pickled")
    torch.save({}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    cut = altered("cut")
    (cut / "model.safetensors").write_bytes(b"\x10")
    bare = tmp_path / "bare"
    bare.mkdir()
    for folder, reason in (
        (unknown, "from-the-future"),
        (wrong_kind, "'vit'"),
        (pickled, "no safetensors"),
        (cut, "header"),
        (bare, "config.json"),
    ):
        with pytest.raises(ModelUnavailable, match=reason) as caught:
            load(folder)
        assert str(folder) not in str(caught.value)
        assert caught.value.param == "model"


def test_resuming_wants_the_whole_model(tiny_model: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"classifier\.weight"):
        TextClassification(spec(), print).load(tiny_model, exact=True)


def test_accuracy_and_macro_f1(tiny_model: Path) -> None:
    task, _ = load(tiny_model, labels=["a", "b", "c"])
    metrics = task.metrics(torch.device("cpu"))
    # a: precision 1/2, recall 1, F1 2/3. b: 1, 1/3, 1/2. c: 1/2, 1, 2/3.
    metrics.update(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    metrics.update(torch.tensor([2, 2]), torch.tensor([1, 2]))
    values = {name: float(value) for name, value in metrics.compute().items()}
    assert values["accuracy"] == pytest.approx(3 / 5)
    assert values["f1_macro"] == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert set(values) == set(task.metric_names)


def test_the_saved_folder_is_plain_transformers(tiny_model: Path, tmp_path: Path) -> None:
    task, model = load(tiny_model)
    task.save(model, tmp_path / "a")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "a")
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    task.save(plain, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_lists_of_tokens_are_held_for_one_chunk_alone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take ten times the room of the arrays that are made of them."""
    monkeypatch.setattr("training.sequences.CHUNK_ROWS", 4)
    task, _ = load(tiny_model)
    encode, alive = task.encode, []

    def watched(*chunk: Any) -> Any:
        assert sum(one() is not None for one in alive) <= 1
        encoded = encode(*chunk)
        alive.append(weakref.ref(encoded))
        return encoded

    monkeypatch.setattr(task, "encode", watched)
    rows = texts(19)
    examples = read(task, tmp_path, rows)
    assert len(alive) == 5
    assert examples.ids.tolist() == [row[0] for row in rows]
    monkeypatch.undo()
    whole = read(task, tmp_path, rows)
    for name in ("first", "starts", "targets"):
        assert np.array_equal(getattr(examples, name), getattr(whole, name))
    for name, values in whole.tokens.items():
        assert np.array_equal(examples.tokens[name], values)


def test_a_file_whose_weights_have_other_names_is_refused(tmp_path: Path) -> None:
    """All would be drawn, and the user would not know."""
    folder = tiny_bert(tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    save_file({f"wrapped.{name}": tensor for name, tensor in weights.items()},
              folder / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(ModelUnavailable, match="lacks 100% of the weights"):
        load(folder)
