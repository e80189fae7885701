from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.text import squad

from core.errors import BadData
from tests.training.cases import CASES, Rows, questions, write_rows
from training.sequences import Sequences
from training.tasks.question_answering import (
    END,
    START,
    Question,
    QuestionAnswering,
    answer,
    score,
)

CASE = next(case for case in CASES if case.name == "questions")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> QuestionAnswering:
    made = QuestionAnswering(CASE.spec(), print)
    made.load(CASE.base(tmp_path_factory.mktemp("qa") / "base"), exact=False)
    return made


def read(task: QuestionAnswering, path: Path, rows: Rows) -> Sequences:
    return task.read(write_rows(path / "x.arrow", CASE.task, rows), "training_file", lambda: None)


def test_windows_point_at_the_answers_own_characters(
    task: QuestionAnswering, tmp_path: Path
) -> None:
    rows = questions(24, 5)
    examples = read(task, tmp_path, rows)
    assert np.diff(examples.first).max() > 2
    whole = 0
    for place, row in enumerate(rows):
        batch = task.collate(examples, np.array([place]))
        windows = examples.references[place].offsets
        tokens = batch.inputs["input_ids"]
        for targets, ids, offsets in zip(batch.targets, tokens, windows, strict=True):
            if targets[0] > 0:
                assert targets[0] == START | END
                assert (targets > 0).sum() == 1
                # The answer is not whole in this window, or there is none.
                for given in row["answers"]:
                    last = given["start"] + len(given["text"])
                    inside = offsets[:, 0] >= 0
                    begins = inside & (offsets[:, 0] <= given["start"])
                    assert not (begins & (offsets[:, 1] >= last)).any()
                continue
            whole += 1
            end = int((targets.clamp(min=0) & END > 0).int().argmax())
            start = int((targets.clamp(min=0) & START > 0).int().argmax())
            assert row["context"][offsets[start, 0] : offsets[end, 1]] == row["answers"][0]["text"]
            assert task.tokenizer.decode(ids[start : end + 1]) == row["answers"][0]["text"]
    assert whole >= sum(bool(row["answers"]) for row in rows)


def test_an_answer_of_several_words_begins_and_ends_at_its_own(
    task: QuestionAnswering, tmp_path: Path
) -> None:
    row = {
        "id": 1, "question": "it", "context": "the movie was great music",
        "answers": [{"text": "was great", "start": 10}, {"text": "great", "start": 14}],
    }  # fmt: skip
    examples = read(task, tmp_path, [row])
    batch = task.collate(examples, np.array([0]))
    # [CLS] it [SEP] the movie was great music [SEP]
    assert batch.targets.tolist() == [[0, 0, 0, 0, 0, START, END, 0, 0]]


def test_the_loss_is_transformers_own(task: QuestionAnswering, tmp_path: Path) -> None:
    model = CASE.auto.from_pretrained(CASE.base(tmp_path / "base")).eval()
    batch = task.collate(read(task, tmp_path, questions(9, 2)), np.arange(9))
    known = batch.targets.clamp(min=0)
    positions = {
        "start_positions": (known & START > 0).int().argmax(dim=1),
        "end_positions": (known & END > 0).int().argmax(dim=1),
    }
    with torch.no_grad():
        own = model(**batch.inputs, **positions)
        ours = task.loss(model, batch)
    # transformers lets probability go to padding, which ours does not.
    probability = float(ours.sum / ours.count)
    assert probability < float(own.loss)
    alone = task.collate(read(task, tmp_path, questions(1, 2)), np.arange(1))
    known = alone.targets.clamp(min=0)
    with torch.no_grad():
        own = model(**alone.inputs, start_positions=(known & START > 0).int().argmax(dim=1),
                    end_positions=(known & END > 0).int().argmax(dim=1))  # fmt: skip
        ours = task.loss(model, alone)
    assert float(ours.sum / ours.count) == pytest.approx(float(own.loss), rel=1e-5)


def test_sure_logits_give_every_answer_back(task: QuestionAnswering, tmp_path: Path) -> None:
    rows = questions(24, 6)
    examples = read(task, tmp_path, rows)
    batch = task.collate(examples, np.arange(24))
    known = batch.targets.clamp(min=0)
    logits = torch.stack([(known & bit > 0).float() * 10 for bit in (START, END)], dim=-1)
    metrics = task.metrics(torch.device("cpu"))
    loss = type("Loss", (), {"outputs": logits})()
    task.update(metrics, loss, batch)
    assert {name: float(v) for name, v in metrics.compute().items()} == {
        "exact_match": 1.0,
        "f1": 1.0,
    }


def test_an_answer_neither_ends_before_it_begins_nor_leaves_the_context() -> None:
    offsets = np.array([[-1, -1], [-1, -1], [0, 3], [4, 7], [8, 11], [-1, -1]], dtype=np.int32)
    question = Question("abc def ghi", [], [offsets])
    logits = np.zeros((1, 6, 2), dtype=np.float32)
    logits[0, 4, 0] = logits[0, 2, 1] = 5
    logits[0, 1] = 9
    logits[0, 3] = 2
    assert answer(question, logits) in ("def ghi", "abc def", "ghi", "abc")
    logits[0, 0] = 9
    assert answer(question, logits) == ""


@pytest.mark.parametrize(
    ("predicted", "answers"),
    [
        ("The Eiffel-Tower!", ["eiffeltower"]),
        ("in the year 1066", ["1066", "the year 1066"]),
        ("a cat", ["dog"]),
        ("Paris Paris", ["Paris"]),
    ],
)
def test_scores_are_squads(predicted: str, answers: list[str]) -> None:
    theirs = squad(
        {"prediction_text": predicted, "id": "1"},
        {"answers": {"text": answers, "answer_start": [0] * len(answers)}, "id": "1"},
    )
    exact, overlap = score(predicted, answers)
    assert 100 * exact == pytest.approx(float(theirs["exact_match"]))
    assert 100 * overlap == pytest.approx(float(theirs["f1"]))


def test_no_answer_is_right_where_there_is_none() -> None:
    assert score("", []) == (1.0, 1.0)
    assert score("x", []) == (0.0, 0.0)
    assert score("", ["x"]) == (0.0, 0.0)


def test_questions_that_leave_no_room_are_named(task: QuestionAnswering, tmp_path: Path) -> None:
    rows = [*questions(2, 0), {"id": 9, "question": "it " * 20, "context": "a", "answers": []}]
    with pytest.raises(BadData) as caught:
        read(task, tmp_path, rows)
    assert caught.value.details == [{"row": 9}]


def test_where_every_question_has_an_answer_none_is_no_answer(
    task: QuestionAnswering, tmp_path: Path
) -> None:
    """As SQuAD 1 is measured; one question without an answer makes it SQuAD 2."""
    rows = questions(8, 0)
    read(task, tmp_path, rows)
    assert not task.always_answered
    read(task, tmp_path, [row for row in rows if row["answers"]])
    assert task.always_answered
    offsets = np.array([[-1, -1], [0, 3], [4, 7]], dtype=np.int32)
    logits = np.array([[[9, 9], [1, 1], [2, 2]]], dtype=np.float32)
    question = Question("abc def", ["def"], [offsets])
    assert answer(question, logits) == ""
    assert answer(question, logits, always=True) == "def"
