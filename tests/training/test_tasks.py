"""What holds for every task alike: it learns, resumes to the bit, and its output is plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import BadData
from ingest import tasks as formats
from models.tasks import TRAINABLE
from tests.training.cases import CASES, Case, write_rows
from tests.training.material import JobFolder, StopAfter, fresh_copy, of_type, run, weights_of
from training import optim, tasks, tuning
from training.accumulate import accumulate
from training.report import samples
from training.report.run import read_run

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

Whole = tuple[JobFolder, list[dict[str, Any]]]


class Runs(dict[str, Whole]):
    """Each case, run from beginning to end once, when it is first asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __missing__(self, name: str) -> Whole:
        case = next(case for case in CASES if case.name == name)
        folder = case.folder(self.path / name)
        self[name] = folder, run(folder.job(case.spec()))
        return self[name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    return Runs(tmp_path_factory.mktemp("whole"))


def test_every_task_has_a_case() -> None:
    assert {case.task for case in CASES} == set(TRAINABLE)


@pytest.mark.parametrize("task", TRAINABLE)
def test_the_metrics_that_users_are_told_of_are_reported(task: str) -> None:
    of_task = [tasks.create(case.spec(), print) for case in CASES if case.task == task]
    names = {"loss", *(name for one in of_task for name in one.metric_names)}
    # A data set of a shape that no case has may have more.
    assert set(formats.get(task).metrics) <= names


@every_case
def test_it_learns_and_reports_its_metrics(case: Case, whole: dict[str, Whole]) -> None:
    _, records = whole[case.name]
    losses = [r["values"]["loss"] for r in of_type(records, "metrics", split="train")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    task = tasks.create(case.spec(), print)
    for point in of_type(records, "metrics", split="valid"):
        assert {"loss", *task.metric_names} == set(point["values"])


@every_case
def test_a_stopped_and_resumed_run_ends_in_the_same_bits(
    case: Case, whole: dict[str, Whole], tmp_path: Path
) -> None:
    unbroken, records = whole[case.name]
    folder = fresh_copy(unbroken, tmp_path / "job")
    run(folder.job(case.spec()), StopAfter(folder, 5))
    newest = folder.newest_checkpoint()
    assert newest.name == "step-5"
    resumed = run(folder.job(case.spec(), resume_from=newest))
    assert resumed[-1]["metrics"] == records[-1]["metrics"]
    assert weights_of(folder.path / "output") == weights_of(unbroken.path / "output")


@every_case
def test_plain_transformers_gives_the_engines_logits(case: Case, whole: dict[str, Whole]) -> None:
    folder, _ = whole[case.name]
    output = folder.path / "output"
    # What was tuned in whatever way is a whole model now.
    task = tasks.create(case.spec(tuning="full", lora=None, freeze=None), lambda message: None)
    engine = task.load(output, exact=True).eval()
    plain = case.auto.from_pretrained(output).eval()
    examples = task.read(folder.path / "valid.arrow", "validation_file", lambda: None)
    batch = task.collate(examples, np.arange(8))
    if case.name == "judgements":
        # What judges is no part of the model.
        plain.judge = engine.judge
    with torch.no_grad():
        ours, theirs = (task.loss(model, batch) for model in (engine, plain))
        labels = {"labels": batch.targets} if case.has_own_loss else {}
        theirs_whole = plain(**batch.inputs, **labels)
        logits = engine(**batch.inputs, **labels).logits if labels else engine(**batch.inputs)[0]
        assert torch.equal(logits, theirs_whole.logits if labels else theirs_whole[0])
        if case.has_own_loss:
            own = float(theirs_whole.loss)
            assert float(ours.sum / ours.count) == pytest.approx(own, rel=1e-5)
    assert torch.equal(ours.sum, theirs.sum)
    assert len(logits.unique()) > 1


@every_case
def test_micro_batches_of_any_size_give_the_full_batchs_gradient(
    case: Case, whole: dict[str, Whole]
) -> None:
    folder, _ = whole[case.name]
    task = tasks.create(case.spec(), lambda message: None)
    model = tuning.load(task, folder.model, None).eval()
    examples = task.read(folder.path / "train.arrow", "training_file", lambda: None)

    def gradient(*parts: range) -> tuple[torch.Tensor, float]:
        model.zero_grad(set_to_none=True)
        rows = [np.array(part) for part in parts]
        if task.joins_rows:
            task.rows_at_once, rows = max(map(len, rows)), [np.concatenate(rows)]
        totals = accumulate(task, model, examples, rows, step=1, epoch=2)
        optim.normalise_gradients(model, totals.count, max_norm=1e9)
        flat = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return torch.cat(flat), totals.means["loss"]

    full, loss = gradient(range(7))
    split, split_loss = gradient(range(3), range(3, 4), range(4, 7))
    assert split_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(split, full, atol=1e-5, rtol=1e-3)


@every_case
def test_what_the_model_makes_of_some_rows_can_be_shown(
    case: Case, whole: dict[str, Whole]
) -> None:
    folder, records = whole[case.name]
    assert not of_type(records, "log", level="warn")
    points = [json.dumps(record) for record in of_type(records, "metrics")]
    (folder.path / "series.jsonl").write_text("\n".join(points))
    shown = samples.cells(read_run(folder.path))
    assert len(shown) == 12
    assert len({tuple(cells) for cells in shown}) == 1
    assert len(shown[0]) > 2
    assert all(str(cell) for cells in shown for cell in list(cells.values())[1:2])


@every_case
def test_it_trains_and_shows_rows_in_16_bits(
    case: Case, whole: dict[str, Whole], tmp_path: Path
) -> None:
    folder = fresh_copy(whole[case.name][0], tmp_path / "job")
    changes = {"precision": "bf16", "total_steps": 2, "eval_every": 2, "checkpoint_every": 2}
    records = run(folder.job(case.spec(**changes)))
    assert of_type(records, "done")
    assert not of_type(records, "log", level="warn")


@every_case
def test_a_file_without_rows_is_refused(
    case: Case, whole: dict[str, Whole], tmp_path: Path
) -> None:
    task = tasks.create(case.spec(), print)
    task.load(whole[case.name][0].model, exact=False)
    empty = write_rows(tmp_path / "empty.arrow", case.task, [])
    with pytest.raises(BadData, match="no rows"):
        task.read(empty, "training_file", lambda: None)
