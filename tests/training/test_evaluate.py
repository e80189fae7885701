from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import BadData
from tests.training.cases import CASES, write_rows
from tests.training.material import Row, spec, texts, write_arrow
from training import tasks
from training.control import Control, StopRequested
from training.evaluate import evaluate
from training.failures import NonFiniteLoss
from training.sequences import Sequences
from training.tasks.text_classification import TextClassification


@pytest.fixture
def task_and_model(tiny_model: Path) -> tuple[TextClassification, Any]:
    task = TextClassification(spec(), lambda message: None)
    return task, task.load(tiny_model, exact=False)


def read(task: TextClassification, tmp_path: Path, rows: list[Row]) -> Sequences:
    return task.read(write_arrow(tmp_path / "v.arrow", rows), "validation_file", lambda: None)


def measured(
    task: TextClassification, model: Any, examples: Sequences, size: int
) -> dict[str, float]:
    return evaluate(task, model, examples, step=3, batch_size=size, between_batches=lambda: None)


def test_batches_of_any_size_give_the_means_of_all_rows_with_dropout_off(
    task_and_model: tuple[TextClassification, Any], tmp_path: Path
) -> None:
    task, model = task_and_model
    examples = read(task, tmp_path, texts(23))
    batch = task.collate(examples, np.arange(23))
    model.eval()
    with torch.no_grad():
        output = model(**batch.inputs, labels=batch.targets)
    model.train()
    for size in (1, 5, 23):
        values = measured(task, model, examples, size)
        assert values["loss"] == pytest.approx(float(output.loss), rel=1e-5)
        right = (output.logits.argmax(-1) == batch.targets).float().mean()
        assert values["accuracy"] == pytest.approx(float(right))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_came_in(
    task_and_model: tuple[TextClassification, Any], tmp_path: Path, training: bool
) -> None:
    task, model = task_and_model
    examples = read(task, tmp_path, texts(6))
    model.train(training)
    measured(task, model, examples, 2)
    assert {module.training for module in model.modules()} == {training}

    control = Control()
    control.stop("now")
    with pytest.raises(StopRequested):
        evaluate(task, model, examples, step=3, batch_size=2, between_batches=control.check)
    assert {module.training for module in model.modules()} == {training}


def test_a_loss_that_is_not_finite_names_step_and_rows(
    task_and_model: tuple[TextClassification, Any], tmp_path: Path
) -> None:
    task, model = task_and_model
    examples = read(task, tmp_path, texts(4))
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)
    with pytest.raises(NonFiniteLoss) as caught:
        measured(task, model, examples, 1)
    longest = int(examples.lengths.argmax()) + 1
    assert caught.value.details == [{"step": 3, "row": longest}]
    assert caught.value.param == "validation_file"


def test_what_is_kept_does_not_grow_with_the_rows(
    task_and_model: tuple[TextClassification, Any], tmp_path: Path
) -> None:
    task, model = task_and_model
    held: list[int] = []
    outputs: list[weakref.ref[torch.Tensor]] = []
    living: list[int] = []
    update = task.update

    def counted(metrics: Any, loss: Any, batch: Any) -> None:
        update(metrics, loss, batch)
        states = [getattr(m, name) for m in metrics.values() for name in m._defaults]
        tensors = [t for s in states for t in (s if isinstance(s, list) else [s])]
        held.append(sum(t.numel() for t in tensors))
        outputs.append(weakref.ref(loss.outputs))
        living.append(sum(output() is not None for output in outputs))

    task.update = counted  # type: ignore[method-assign]
    measured(task, model, read(task, tmp_path, texts(40)), 4)
    assert len(held) == 10
    assert len(set(held)) == 1
    # This batch's, and at most that of the one before.
    assert max(living) <= 2


def test_rows_of_which_nothing_is_to_be_told_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "masks")
    task = tasks.create(case.spec(), print)
    model = task.load(tiny_model, exact=False)
    rows = [{"id": 1, "text": "[SEP]"}]
    path = write_rows(tmp_path / "x.arrow", case.task, rows)
    with pytest.raises(BadData, match="None of the 1 rows of x has anything"):
        task.read(path, "x", lambda: None)
    # As images may be, of which reading does not tell what they show.
    examples = task._encoded(path, "x", lambda: None)  # type: ignore[attr-defined]
    with pytest.raises(BadData, match="nothing to measure by"):
        measured(task, model, examples, 4)  # type: ignore[arg-type]
