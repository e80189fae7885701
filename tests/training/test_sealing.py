"""What happens while a checkpoint is completed beside the training."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.material import (
    JobFolder,
    StopAfter,
    fresh_copy,
    of_type,
    run,
    spec,
    weights_of,
)
from training import checkpoint
from training.checkpoint import Filled, Written
from training.control import Control, StopMode
from training.control import StopRequested as Stopped

PATIENCE_SECONDS = 20.0
PLAN = spec(total_steps=12, checkpoint_every=4, eval_every=100, valid_rows=0)


def at_seal(monkeypatch: pytest.MonkeyPatch, work: Callable[[Filled], None]) -> None:
    """Do this before a checkpoint is sealed, in the thread that seals it."""
    seal = Filled.seal

    def sealed(filled: Filled) -> Written:
        work(filled)
        return seal(filled)

    monkeypatch.setattr(Filled, "seal", sealed)


def stepped(folder: JobFolder, step: int) -> bool:
    lines = (folder.path / "records.jsonl").read_text().splitlines()
    return bool(of_type([json.loads(line) for line in lines], "progress", step=step))


class Waits(Control):
    """After step 6 for what is being sealed."""

    def __init__(self, folder: JobFolder) -> None:
        super().__init__()
        self._folder = folder

    def check(self) -> None:
        if stepped(self._folder, 6):
            for thread in threading.enumerate():
                if thread.name.startswith("seal"):
                    thread.join(PATIENCE_SECONDS)


def test_training_goes_on_and_each_checkpoint_is_that_of_its_step(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh_copy(folder, tmp_path / "expected")
    run(expected.job(PLAN))

    def later(filled: Filled) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while filled.step == 4 and not stepped(folder, 6):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    at_seal(monkeypatch, later)
    records = run(folder.job(PLAN), Waits(folder))
    saved = of_type(records, "checkpoint")
    assert [(r["step"], r["reason"]) for r in saved] == [
        (4, "interval"), (8, "interval"), (12, "final")
    ]  # fmt: skip
    steps = {r["step"]: records.index(r) for r in of_type(records, "progress")}
    assert steps[6] < records.index(saved[0]) < steps[8]
    assert saved[0]["metrics"]["train_loss"] == _loss(records, 4)
    for step in (8, 12):
        ours, theirs = (each.path / "checkpoints" / f"step-{step}" for each in (folder, expected))
        checkpoint.verify(ours)
        assert weights_of(ours) == weights_of(theirs)


def _loss(records: list[dict[str, object]], step: int) -> float:
    (point,) = of_type(records, "metrics", split="train", step=step)
    loss: float = point["values"]["loss"]  # type: ignore[index]
    return loss


def test_the_next_one_waits_for_the_one_before(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = threading.Semaphore(1)

    def slowly(filled: Filled) -> None:
        assert taken.acquire(blocking=False)
        time.sleep(0.3)
        checkpoints = [path.name for path in (folder.path / "checkpoints").glob("step-*.tmp")]
        assert checkpoints == [f"step-{filled.step}.tmp"]
        taken.release()

    at_seal(monkeypatch, slowly)
    records = run(folder.job(PLAN))
    assert [r["step"] for r in of_type(records, "checkpoint")] == [4, 8, 12]


def test_a_disk_that_fills_up_ends_the_run(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(filled: Filled) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    at_seal(monkeypatch, full)
    with pytest.raises(OSError, match="No space"):
        run(folder.job(PLAN))
    assert stepped(folder, 4)
    assert not stepped(folder, 9)


class Ends(StopAfter):
    """After this step ends with an error, or is stopped."""

    def __init__(self, folder: JobFolder, step: int, mode: StopMode | None) -> None:
        super().__init__(folder, step, mode or "now")
        self._fails = mode is None

    def check(self) -> None:
        try:
            super().check()
        except Stopped:
            if self._fails:
                raise ValueError("The step after failed.") from None
            raise


@pytest.mark.parametrize("mode", [None, "save"])
def test_neither_a_failure_nor_a_stop_costs_the_one_before(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, mode: StopMode | None
) -> None:
    at_seal(monkeypatch, lambda filled: time.sleep(0.5))
    control: Control = Ends(folder, 4, mode)
    if mode is None:
        with pytest.raises(ValueError, match="The step after failed"):
            run(folder.job(PLAN), control)
    else:
        assert run(folder.job(PLAN), control)[-1]["type"] == "stopped"
    assert not stepped(folder, 5)
    checkpoint.verify(folder.path / "checkpoints" / "step-4")
    assert '"type": "checkpoint"' in (folder.path / "records.jsonl").read_text()


def test_a_stop_that_saves_nothing_does_not_wait(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    at_seal(monkeypatch, lambda filled: go_on.wait(PATIENCE_SECONDS) and None)
    records = run(folder.job(PLAN), StopAfter(folder, 4, "now"))
    assert records[-1]["type"] == "stopped"
    assert not of_type(records, "checkpoint")
    go_on.set()
