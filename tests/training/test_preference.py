from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import BadData
from tests.training.cases import CASES, Rows, preferred, single_answers, write_rows
from training import tasks, tuning
from training.sequences import IGNORED
from training.tasks.base import Batch
from training.tasks.preference import Preference

BY_NAME = {case.name: case for case in CASES}
CASE = BY_NAME["preferences"]


def batch_of(task: Preference, path: Path, rows: Rows) -> Batch:
    file = write_rows(path / "x.arrow", CASE.task, rows)
    return task.collate(task.read(file, "training_file", lambda: None), np.arange(len(rows)))


@pytest.mark.parametrize("name", ["preferences", "preferences-lora"])
def test_the_loss_is_that_of_the_paper(tmp_path: Path, name: str) -> None:
    case = BY_NAME[name]
    base = case.base(tmp_path / "base")
    task = tasks.create(case.spec(), lambda message: None)
    model = tuning.load(task, base, None)
    batch = batch_of(task, tmp_path, preferred(3, 4))
    before = task.loss(model, batch)
    assert float(before.sum / before.count) == pytest.approx(math.log(2), rel=1e-5)
    assert before.count == 3
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    plain = case.auto.from_pretrained(base).eval()

    def log_probabilities(network: torch.nn.Module) -> torch.Tensor:
        sums = []
        for tokens, targets in zip(batch.inputs["input_ids"], batch.targets, strict=True):
            scores = network(input_ids=tokens[None]).logits[0].log_softmax(dim=-1)
            learnt = [place for place in range(1, len(tokens)) if targets[place] != IGNORED]
            sums.append(sum(scores[place - 1, tokens[place]] for place in learnt))
        return torch.stack(sums)

    with torch.no_grad():
        ratio = log_probabilities(model.eval()) - log_probabilities(plain)
        loss = task.loss(model, batch)
    beta = case.spec().beta
    assert beta is not None
    margin = beta * (ratio[0::2] - ratio[1::2])
    expected = -torch.nn.functional.logsigmoid(margin).sum()
    assert float(loss.sum) == pytest.approx(float(expected), rel=1e-4)
    assert float(margin.abs().max()) > 0.1
    metrics = task.metrics(torch.device("cpu"))
    task.update(metrics, loss, batch)
    assert float(metrics["margin"].compute()) == pytest.approx(float(margin.mean()), rel=1e-4)


def test_only_the_answers_are_compared(tmp_path: Path) -> None:
    task = Preference(CASE.spec(), print)
    task.load(CASE.base(tmp_path / "base"), exact=False)
    rows = preferred(2, 1)
    rows[0]["prompt"] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    batch = batch_of(task, tmp_path, rows)
    learnt = [task.tokenizer.decode(row[row != IGNORED]) for row in batch.targets]
    answers = [row[side][0]["content"] for row in rows for side in ("chosen", "rejected")]
    assert learnt == [f"{answer}</s>" for answer in answers]


def test_a_row_with_one_answer_is_named(tmp_path: Path) -> None:
    task = Preference(CASE.spec(), print)
    task.load(CASE.base(tmp_path / "base"), exact=False)
    rows = preferred(3, 1)
    rows[1]["rejected"] = None
    with pytest.raises(BadData, match="one answer only") as caught:
        batch_of(task, tmp_path, rows)
    assert caught.value.details == [{"row": 2}]


def test_the_reference_knows_no_dropout(tmp_path: Path) -> None:
    case = BY_NAME["preferences-lora"]
    task = Preference(case.spec(), lambda message: None)
    model = tuning.load(task, case.base(tmp_path / "base"), None).train()
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    batch = batch_of(task, tmp_path, preferred(3, 4))
    first, second = (task._reference_log_probability(model, batch) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training


def test_kto_sets_each_prompt_before_the_next_rows_answer(tmp_path: Path) -> None:
    task = Preference(BY_NAME["kto"].spec(), print)
    task.load(CASE.base(tmp_path / "base"), exact=False)
    rows = single_answers(3, 1)
    for row in rows:
        row["prompt"] = [{"role": "user", "content": f"prompt {row['id']}, "}]
        row["chat"] = False
    batch = batch_of(task, tmp_path, rows)
    answers = [(row["chosen"] or row["rejected"])[0]["content"] for row in rows]
    texts = task.tokenizer.batch_decode(batch.inputs["input_ids"], skip_special_tokens=True)
    learnt = [task.tokenizer.decode(row[row != IGNORED]) for row in batch.targets]
    followers = [*answers, *answers[1:], answers[0]]
    assert texts == [f"prompt {row}, {text}" for row, text in zip([1, 2, 3] * 2, followers)]  # noqa: B905
    assert learnt == [f"{text}</s>" for text in followers]
    assert batch.references == [row["chosen"] is not None for row in rows]


def test_kto_takes_rows_with_one_answer_alone(tmp_path: Path) -> None:
    task = Preference(BY_NAME["kto"].spec(), print)
    task.load(CASE.base(tmp_path / "base"), exact=False)
    rows = [*single_answers(2, 1), preferred(3, 1)[2]]
    with pytest.raises(BadData, match="two answers for KTO") as caught:
        batch_of(task, tmp_path, rows)
    assert caught.value.details == [{"row": 3}]


def test_a_row_alone_has_no_shift(tmp_path: Path) -> None:
    """Its own answer would take its own place, and nothing would be left to learn."""
    task = tasks.create(BY_NAME["kto"].spec(), lambda message: None)
    model = tuning.load(task, CASE.base(tmp_path / "base"), None)
    assert isinstance(task, Preference)
    batch = batch_of(task, tmp_path, single_answers(1, 1))
    assert task.loss(model, batch).sum.item() == pytest.approx(0.5)


def test_what_kto_compares_with_is_not_counted_as_trained(tmp_path: Path) -> None:
    task = tasks.create(BY_NAME["kto"].spec(), print)
    assert isinstance(task, Preference)
    task.load(CASE.base(tmp_path / "base"), exact=False)
    batch = batch_of(task, tmp_path, single_answers(4, 1))
    assert len(batch.inputs["input_ids"]) == 8
    assert batch.tokens == int(batch.inputs["attention_mask"][:4].sum())
