"""A job in two processes, one of which is killed. A variant of row 6."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG
from tests.faults.processes import Process, wait_for

SECONDS = 480.0
"""Each attempt starts two trainers, one after the other."""


@pytest.fixture
def worker(fleet: Fleet) -> Iterator[Process]:
    """One that shares each job among two processes."""
    for other in fleet.alive("worker"):
        fleet.end(other)
    started = fleet.start_worker(LUTHIER_CPU_RANKS="2")
    yield started
    fleet.end(started)


def peer(worker: Process) -> psutil.Process | None:
    """The second rank, the child of a trainer."""
    for trainer in worker.trainers():
        for child in trainer.children():
            return child
    return None


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_a_killed_rank_costs_its_job_a_restart_from_the_last_checkpoint(
    fleet: Fleet, worker: Process
) -> None:
    file = fleet.upload()
    unbroken = fleet.submit(file, **LONG)
    assert fleet.wait_status(unbroken, *TERMINAL, seconds=SECONDS)["status"] == "succeeded"

    job_id = fleet.submit(file, **LONG)
    wait_for("a checkpoint", lambda: fleet.newest_checkpoint(job_id))
    wait_for("the second rank", lambda: peer(worker)).kill()
    assert fleet.wait_status(job_id, *TERMINAL, seconds=SECONDS)["status"] == "succeeded"
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["trainer_crashed", "succeeded"]
    assert fleet.weights_sha256(job_id) == fleet.weights_sha256(unbroken)
