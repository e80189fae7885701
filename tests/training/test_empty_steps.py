"""Steps and files with nothing to learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.errors import BadData
from tests.training.cases import CASES, Case, Rows, plain, write_rows
from tests.training.material import JobFolder, StopAfter, of_type, recording, run, weights_of
from tests.training.pictures import masks, png
from tests.training.rank_processes import job_of_ranks, run_ranks
from training.control import Control
from training.loop import train
from training.run import Run

MASKS = next(case for case in CASES if case.name == "masks")
SEGMENTS = next(case for case in CASES if case.name == "segments")
PLAN = {
    "train_rows": 8, "valid_rows": 0, "metric": "loss", "greater_is_better": False,
    "batch_size": 1, "micro_batch_size": 1, "steps_per_epoch": 8, "total_steps": 16,
    "warmup_steps": 0, "checkpoint_every": 5, "ema_decay": 0.9,
}  # fmt: skip


def folder_of(path: Path, case: Case, rows: Rows) -> JobFolder:
    base = case.base(path / "base")
    write_rows(path / "train.arrow", case.task, rows)
    return JobFolder(path, base)


def with_one_silent() -> Rows:
    return [*plain(7, 0), {"id": 8, "text": "[SEP] [SEP]"}]


def unlabelled(rows: int) -> Rows:
    """Images of which no pixel has a class."""
    made = masks(rows, 0)
    for row in made:
        row |= {"mask": png(np.full((row["height"], row["width"]), 255, dtype=np.uint8)),
                "mask_ids": [], "mask_labels": []}  # fmt: skip
    return made


def test_such_a_step_changes_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does weight decay change the weights, nor momentum, nor what they were before their
    moving average."""
    changed: dict[int, bool] = {}
    step = Run.step

    def watched(at: Run) -> None:
        kept = [tensor.clone() for tensor in weights(at)]
        step(at)
        changed[at.state.step] = any(
            not torch.equal(now, before) for now, before in zip(weights(at), kept, strict=True)
        )

    monkeypatch.setattr(Run, "step", watched)
    records = run(folder_of(tmp_path, MASKS, with_one_silent()).job(MASKS.spec(**PLAN)))
    points = of_type(records, "metrics", split="train")
    silent = sorted({*range(1, 17)} - {point["step"] for point in points})
    assert len(silent) == 2
    assert [step for step in changed if not changed[step]] == silent
    assert all(math.isfinite(value) for point in points for value in point["values"].values())
    assert [record["step"] for record in of_type(records, "progress")] == list(range(1, 17))
    told = [record["message"] for record in of_type(records, "log")]
    assert any("1 of the 8 rows of training_file have nothing" in line for line in told)
    assert sum(line.startswith(f"Step {silent[0]} changes nothing") for line in told) == 1
    assert any(line.startswith("2 of 16 steps had rows with nothing to learn") for line in told)
    assert "Steps 1 to" in (tmp_path / "output" / "README.md").read_text()


def weights(at: Run) -> list[torch.Tensor]:
    assert at.average is not None
    return [parameter.detach() for parameter in at.model.parameters()] + at.average.state()


def test_a_resume_goes_on_counting_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = folder_of(tmp_path / "whole", MASKS, with_one_silent())
    run(whole.job(MASKS.spec(**PLAN)))
    folder = folder_of(tmp_path / "parts", MASKS, with_one_silent())
    run(folder.job(MASKS.spec(**PLAN)), StopAfter(folder, 9))
    records = run(folder.job(MASKS.spec(**PLAN), resume_from=folder.newest_checkpoint()))
    assert weights_of(folder.path / "output") == weights_of(whole.path / "output")
    assert any(line["message"].startswith("2 of 16 steps") for line in of_type(records, "log"))


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_ranks_take_such_a_step_as_one_process_does(tmp_path: Path, sharding: str) -> None:
    """Of a step's two rows each rank has one: there is a step where neither has anything to learn,
    and, three of eight being odd, one where only one's has."""
    plan = {**PLAN, "batch_size": 2, "steps_per_epoch": 4, "total_steps": 8, "ema_decay": None}
    rows: Rows = [*plain(5, 0), *({"id": row, "text": "[SEP] [SEP]"} for row in (6, 7, 8))]
    silent, ended = [], []
    for ranks in (1, 2):
        folder = folder_of(tmp_path / str(ranks), MASKS, rows)
        spec = MASKS.spec(**plan, dropout=0.0)
        if ranks == 1:
            records = run(folder.job(spec))
        else:
            records = run_ranks(job_of_ranks(folder, spec, ranks, sharding=sharding))
        points = {p["step"]: p["values"]["loss"] for p in of_type(records, "metrics")}
        silent.append(sorted({*range(1, 9)} - points.keys()))
        told = [record["message"] for record in of_type(records, "log")]
        assert any(f"{len(silent[-1])} of 8 steps had rows with nothing" in line for line in told)
        ended.append([points, load_file(folder.path / "output" / "model.safetensors")])
    assert silent[0] == silent[1]
    assert silent[0]
    (expected, wanted), (found, weights) = ended
    assert found == pytest.approx(expected, rel=1e-4)
    for name, tensor in wanted.items():
        torch.testing.assert_close(weights[name], tensor, atol=2e-5, rtol=1e-3)


def test_a_file_of_nothing_else_is_refused_when_it_is_read(tmp_path: Path) -> None:
    rows: Rows = [{"id": row, "text": "[SEP]"} for row in range(1, 9)]
    folder = folder_of(tmp_path, MASKS, rows)
    with pytest.raises(BadData, match="None of the 8 rows of training_file") as caught:
        run(folder.job(MASKS.spec(**PLAN)))
    assert caught.value.error_code == "bad_data"


def test_a_file_whose_reading_does_not_tell_is_refused_after_an_epoch(tmp_path: Path) -> None:
    plan: dict[str, Any] = {**PLAN, "batch_size": 4, "micro_batch_size": 4, "steps_per_epoch": 2}
    folder = folder_of(tmp_path, SEGMENTS, unlabelled(8))
    job = folder.job(SEGMENTS.spec(**plan))
    with (
        recording(tmp_path / "records.jsonl") as (records, kept),
        pytest.raises(BadData, match="holds nothing to learn"),
    ):
        train(job, records, Control())
    assert not of_type(kept, "metrics")
    assert len(of_type(kept, "progress")) < 2

    few = folder_of(tmp_path / "few", SEGMENTS, [*masks(6, 0), *unlabelled(8)[6:]])
    assert of_type(run(few.job(SEGMENTS.spec(**plan))), "done")
