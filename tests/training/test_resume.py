"""Real trainer processes, really killed: the weights must be those of a run that nobody touched."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.training.driver import Record, Trainer
from tests.training.material import JobFolder, fresh_copy, job_folder, of_type, spec, weights_of
from training import checkpoint

STEPS = 90
# Over 11 epochs of 8 steps, so that kills fall within epochs; no interval divides an epoch.
PLAN = spec(total_steps=STEPS, n_epochs=12, eval_every=7, checkpoint_every=5, micro_batch_size=3)

Points = dict[tuple[str, int], dict[str, Any]]


def points(records: list[Record]) -> Points:
    """The metric series that a supervisor stores: by split and step. Speeds are left out."""
    return {
        (r["split"], r["step"]): {k: v for k, v in r["values"].items() if "per_second" not in k}
        for r in of_type(records, "metrics")
    }


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> tuple[JobFolder, Points]:
    """The job, run to its end by one trainer that nobody disturbed, and its points."""
    folder = job_folder(tmp_path_factory.mktemp("unbroken") / "job", tiny_model)
    with Trainer() as trainer:
        assert trainer.start(folder.write(PLAN)).finish()["type"] == "done", trainer.log()
        return folder, points(trainer.records)


def resume(folder: JobFolder) -> tuple[Trainer, int]:
    """A trainer on the newest checkpoint, and the step that it starts from."""
    steps = sorted(
        int(path.name.removeprefix("step-"))
        for path in (folder.path / "checkpoints").glob("step-*")
        if path.suffix != ".tmp"
    )
    for step in steps:
        # A kill may leave much behind, but nothing that looks like a checkpoint and is none.
        checkpoint.verify(folder.path / "checkpoints" / f"step-{step}")
    newest = folder.path / "checkpoints" / f"step-{steps[-1]}" if steps else None
    return Trainer().start(folder.write(PLAN, resume_from=newest)), steps[-1] if steps else 0


def freeze_inside_a_save(folder: JobFolder, trainer: Trainer, delay: float) -> None:
    """Return with the trainer stopped while a checkpoint of its lies half written, so long after
    its first file was there."""
    half_written = partial((folder.path / "checkpoints").glob, "step-*.tmp/*")
    for record in trainer.read():
        if (record["type"], record.get("phase")) == ("phase", "saving"):
            looking_until = time.monotonic() + 1
            while not list(half_written()) and time.monotonic() < looking_until:
                time.sleep(0.0005)
            time.sleep(delay)
            trainer.process.send_signal(signal.SIGSTOP)
            os.waitpid(trainer.process.pid, os.WUNTRACED)
            if list(half_written()):
                return
            trainer.process.send_signal(signal.SIGCONT)
    raise AssertionError(f"no save was caught half way. The trainer's log:\n{trainer.log()}")


def test_kills_at_random_steps_and_inside_a_save_change_nothing(
    unbroken: tuple[JobFolder, Points], tmp_path: Path
) -> None:
    whole, expected = unbroken
    folder = fresh_copy(whole, tmp_path / "job")
    seed = random.randrange(10**6)
    print("seed", seed)
    draw = random.Random(seed)
    stored: Points = {}

    for inside_a_save in (False, True, None):
        trainer, start = resume(folder)
        with trainer:
            if inside_a_save is None:
                assert trainer.finish()["type"] == "done", trainer.log()
            elif inside_a_save:
                freeze_inside_a_save(folder, trainer, draw.uniform(0, 0.01))
                trainer.kill()
                assert list(folder.path.glob("checkpoints/*.tmp"))
            else:
                trainer.wait_for("progress", step=start + draw.randint(1, 25))
                time.sleep(draw.uniform(0, 0.02))
                trainer.kill()
            trainer.finish()
            assert (of_type(trainer.records, "done") == []) is (inside_a_save is not None)
            # As a supervisor does: what came after the checkpoint is forgotten, and comes again.
            fresh = points(trainer.records)
            assert min(step for _, step in fresh) == start + 1
            stored = {key: v for key, v in stored.items() if key[1] <= start} | fresh

    assert not list(folder.path.rglob("*.tmp"))
    assert weights_of(folder.path / "output") == weights_of(whole.path / "output")
    assert stored == expected
