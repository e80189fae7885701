from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.errors import BadData, InvalidRequest
from tests.training.cases import CASES, tagged, write_rows
from training.entities import EntityScores, entities
from training.sequences import IGNORED
from training.tasks.token_classification import TokenClassification, heads

CASE = next(case for case in CASES if case.name == "entities")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-A I-A O", {("A", 0, 2)}),
        ("B-A B-A", {("A", 0, 1), ("A", 1, 2)}),
        ("B-A I-B I-B", {("A", 0, 1), ("B", 1, 3)}),
        ("I-A I-A O I-A", {("A", 0, 2), ("A", 3, 4)}),
        ("O B-A-1 I-A-1", {("A-1", 1, 3)}),
        ("NOUN NOUN O VERB", {("NOUN", 0, 1), ("NOUN", 1, 2), ("VERB", 3, 4)}),
        ("B-A I-A", {("A", 0, 2)}),
        ("B I I O B", {("", 0, 3), ("", 4, 5)}),
        ("B-A I-A E-A S-B O", {("A", 0, 3), ("B", 3, 4)}),
        ("U-A B-A L-A I-A", {("A", 0, 1), ("A", 1, 3), ("A", 3, 4)}),
        ("B-A E-B", {("A", 0, 1), ("B", 1, 2)}),
    ],
)
def test_entities_of_tags(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == expected


def test_scores_count_whole_entities_over_all_texts() -> None:
    scores = EntityScores()
    # Right: A at 0..2. Wrong end: B. Predicted alone: A at 5.
    scores.update(["B-A", "I-A", "O", "B-B", "O", "B-A"], ["B-A", "I-A", "O", "B-B", "I-B", "O"])
    scores.update(["O"], ["B-A"])
    values = {name: float(value) for name, value in scores.compute().items()}
    assert values == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3})
    assert {float(v) for v in EntityScores().compute().values()} == {0.0}


def test_each_word_is_learnt_once_at_its_first_token(tmp_path: Path) -> None:
    task = TokenClassification(CASE.spec(), print)
    task.load(CASE.folder(tmp_path / "job").model, exact=False)
    rows = tagged(9, 3)
    examples = task.read(write_rows(tmp_path / "x.arrow", CASE.task, rows), "x", lambda: None)
    assert np.diff(examples.first).max() > 2
    batch = task.collate(examples, np.arange(9))
    assert max(batch.inputs["attention_mask"].sum(dim=1)) == CASE.spec().max_length
    known = batch.targets != IGNORED
    learnt = [
        task.tokenizer.convert_ids_to_tokens(int(t)) for t in batch.inputs["input_ids"][known]
    ]
    assert learnt == [word for row in rows for word in row["tokens"]]
    tags = [task.spec.labels[int(number)] for number in batch.targets[known]]
    assert tags == [tag for row in rows for tag in row["tags"]]


def test_a_word_of_several_tokens_is_learnt_at_the_first(tmp_path: Path) -> None:
    task = TokenClassification(CASE.spec(max_length=6), print)
    task.load(CASE.folder(tmp_path / "job").model, exact=False)
    letters = {letter: number for number, letter in enumerate("?abcdefgh")}
    letters |= {f"##{letter}": len(letters) + n for n, letter in enumerate("abcdefgh")}
    backend = Tokenizer(models.WordPiece(vocab=letters, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    task.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?", pad_token="?")
    tokens = ["abc", "d", "efgh", "a", "bcdefgh", "h"]
    tags = ["B-BAD", "I-BAD", "O", "B-GOOD", "I-GOOD", "O"]
    path = write_rows(tmp_path / "x.arrow", CASE.task, [{"id": 1, "tokens": tokens, "tags": tags}])
    batch = task.collate(task.read(path, "x", lambda: None), np.arange(1))
    known = batch.targets != IGNORED
    firsts = task.tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][known].tolist())
    assert firsts == [word[0] for word in tokens]
    assert [task.spec.labels[int(n)] for n in batch.targets[known]] == tags


def test_words_that_windows_share_are_split_in_their_middle() -> None:
    assert heads([[None, 0, 1, 1, 2, 3, None], [None, 2, 3, 4, None]]) == [
        [None, 0, 1, None, 2, None, None],
        [None, None, 3, 4, None],
    ]


def test_an_entity_that_lies_across_windows_is_one(tmp_path: Path) -> None:
    task = TokenClassification(CASE.spec(max_length=8), print)
    task.load(CASE.folder(tmp_path / "job").model, exact=False)
    tags = ["B-BAD", *["I-BAD"] * 19]
    row = {"id": 1, "tokens": ["awful"] * 20, "tags": tags}
    examples = task.read(write_rows(tmp_path / "x.arrow", CASE.task, [row]), "x", lambda: None)
    batch = task.collate(examples, np.arange(1))
    metrics = task.metrics(torch.device("cpu"))
    loss = type("Loss", (), {"outputs": batch.targets.clamp(min=0)})()
    task.update(metrics, loss, batch)
    assert int(metrics["entities"].true) == int(metrics["entities"].found) == 1


def test_a_tag_that_training_had_not_is_refused_with_its_row(tmp_path: Path) -> None:
    task = TokenClassification(CASE.spec(), print)
    task.load(CASE.folder(tmp_path / "job").model, exact=False)
    rows = [{"id": 4, "tokens": ["a"], "tags": ["B-NEW"]}]
    with pytest.raises(BadData) as caught:
        task.read(write_rows(tmp_path / "x.arrow", CASE.task, rows), "x", lambda: None)
    assert caught.value.details == [{"row": 4}]


def test_a_length_that_leaves_no_room_for_a_text_is_refused(tmp_path: Path) -> None:
    """A tokenizer would not cut at all, and the model could not take what it gave."""
    base = CASE.base(tmp_path / "base")
    with pytest.raises(InvalidRequest) as raised:
        TokenClassification(CASE.spec(max_length=3), print).load(base, exact=False)
    assert raised.value.param == "max_length"
    assert "3 tokens of its own" in raised.value.message
    TokenClassification(CASE.spec(max_length=4), print).load(base, exact=False)
