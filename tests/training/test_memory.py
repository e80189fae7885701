"""Peak memory of a whole run, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.cases import CASES, write_rows
from tests.training.driver import Trainer
from tests.training.material import JobFolder, of_type

CASE = next(case for case in CASES if case.name == "segments")
SIDE = 96
"""Of the images as the model sees them. The classes of one, as numbers of 64 bits, take 72 KiB: ten
times the rows would be felt if they were kept."""


def peak_of(path: Path, base: Path, rows: int) -> int:
    """Bytes of a run that has evaluated so many rows, as its next step tells."""
    write_rows(path / "train.arrow", CASE.task, CASE.rows(8, 0))
    write_rows(path / "valid.arrow", CASE.task, CASE.rows(rows, 1))
    plan = CASE.spec(
        total_steps=2, eval_every=1, checkpoint_every=100, train_rows=8, valid_rows=rows
    )
    with Trainer() as trainer:
        trainer.start(JobFolder(path, base).write(plan))
        assert trainer.finish()["type"] == "done", trainer.log()
        return int(of_type(trainer.records, "progress", step=2)[0]["peak_memory_bytes"])


@pytest.mark.slow
def test_an_evaluation_takes_as_much_memory_whatever_its_rows(tmp_path: Path) -> None:
    base = CASE.base(tmp_path / "base")
    config = json.loads((base / "preprocessor_config.json").read_text())
    config["size"] = {"height": SIDE, "width": SIDE}
    (base / "preprocessor_config.json").write_text(json.dumps(config))
    few, many = (peak_of(tmp_path / str(rows), base, rows) for rows in (100, 1000))
    assert many < 1.05 * few
