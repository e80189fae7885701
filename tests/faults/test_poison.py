"""Jobs that bring their trainer down. Row 19."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.leases import POISON_AFTER
from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.processes import Process, assert_dead_within, wait_for

HERE = Path(__file__).parent / "poisoned"


@dataclass(frozen=True)
class Poison:
    """A seed that poisoned/trainer.py knows, and what is to come of it."""

    seed: int
    deed: str
    code: str
    attempts: int
    outcome: str
    told: str
    """Found in the error's message."""


SEGFAULT = Poison(1001, "_segfault", "poison", POISON_AFTER, "trainer_crashed", "signal 11")
EXIT = Poison(
    1002, "_exit_without_a_result", "poison", POISON_AFTER, "trainer_crashed", "no result"
)
KILLED = Poison(1003, "_killed_for_memory", "poison", POISON_AFTER, "trainer_crashed", "signal 9")
TOO_LARGE = Poison(1004, "_too_large", "out_of_memory", 1, "failed", "one row at a time")
NOT_A_NUMBER = Poison(1005, "_not_a_number", "non_finite_loss", 1, "failed", "step 6")
OWN_ERROR = Poison(1006, "_own_error", "poison", POISON_AFTER, "internal", "a mistake of ours")


@pytest.fixture
def worker(fleet: Fleet, tmp_path: Path) -> Iterator[Process]:
    """One whose trainers do what the seed says."""
    for other in fleet.alive("worker"):
        fleet.end(other)
    trainer = tmp_path / "trainer"
    trainer.write_text(f"#!{sys.executable}\n{(HERE / 'trainer.py').read_text()}")
    trainer.chmod(0o755)
    started = fleet.start_worker(PYTHONPATH=str(HERE), LUTHIER_FAULTS_TRAINER=str(trainer))
    yield started
    fleet.end(started)


@pytest.mark.parametrize(
    "poisons",
    [
        [SEGFAULT, NOT_A_NUMBER],
        pytest.param([EXIT, KILLED, TOO_LARGE, OWN_ERROR], marks=pytest.mark.faults),
    ],
)
@pytest.mark.faults
def test_a_poison_job_ends_and_the_others_move_on(
    fleet: Fleet, worker: Process, poisons: list[Poison]
) -> None:
    """Row 19: a bounded number of attempts, a stable code, the trainer's last words."""
    file_id = fleet.upload()
    before = fleet.submit(file_id, max_steps=10)
    poisoned = {
        poison: fleet.submit(file_id, seed=poison.seed, max_steps=20, checkpoint_every=20)
        for poison in poisons
    }
    after = fleet.submit(file_id, max_steps=10)
    for good in (before, after):
        job = fleet.wait_status(good, *TERMINAL, seconds=180)
        assert job["status"] == "succeeded", job["error"]
    for poison, job_id in poisoned.items():
        job = fleet.wait_status(job_id, *TERMINAL, seconds=180)
        assert job["status"] == "failed", poison
        assert job["error"]["code"] == poison.code, job["error"]
        assert poison.told in job["error"]["message"], job["error"]
        outcomes = [attempt["outcome"] for attempt in fleet.attempts(job_id)]
        assert outcomes == [poison.outcome] * poison.attempts
        log = fleet.http.get(f"/fine_tuning/jobs/{job_id}/logs")
        assert f"now comes {poison.deed}" in log.text
        assert_measured(fleet, job, steps=5)
    assert worker.alive


def assert_measured(fleet: Fleet, job: dict[str, Any], steps: int) -> None:
    """A job that ended without a model has the metrics of its last attempt as a file, to the step
    before the deed, and the report."""
    names = [fleet.get(f"/files/{file_id}")["filename"] for file_id in job["result_files"]]
    assert names[0] == f"{job['id']}-metrics.csv"
    told = [event["message"] for event in fleet.events(job["id"])]
    assert f"{job['id']}-report.html" in names, told
    content = fleet.http.get(f"/files/{job['result_files'][0]}/content").text
    measured = [int(line.split(",")[0]) for line in content.splitlines()[1:]]
    assert measured == list(range(1, steps + 1))
    assert fleet.steps_seen(job["id"]) == measured


@pytest.mark.faults
def test_a_worker_without_a_working_trainer_claims_nothing(fleet: Fleet, worker: Process) -> None:
    """Row 19, the worker's side: its standby trainer is killed again and again; jobs wait."""
    job_id = ""
    for _ in range(3):
        (standby,) = wait_for("a standby trainer", lambda: worker.trainers() or None)
        standby.kill()
        assert_dead_within(10, "the standby trainer", [standby])
        job_id = job_id or fleet.submit(fleet.upload(), max_steps=5)
    job = fleet.wait_status(job_id, *TERMINAL)
    assert job["status"] == "succeeded"
    assert len(job["attempts"]) == 1
    assert worker.alive


@pytest.mark.faults
def test_a_trainer_that_is_killed_while_it_starts_does_not_end_its_worker(fleet: Fleet) -> None:
    """Found by a soak: the worker's own start was over with its first trainer's."""
    for left in fleet.alive("worker"):
        fleet.end(left)
    starting = fleet.start("worker")
    (standby,) = wait_for("a standby trainer", lambda: starting.trainers() or None)
    standby.kill()
    job_id = fleet.submit(fleet.upload(), max_steps=5)
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
    assert starting.alive
