"""Redis and PostgreSQL that restart, stop or freeze under running jobs. Rows 4 and 10.

Row 3, Redis at submission, is in test_submit.py.
"""

from __future__ import annotations

import random
import signal

import pytest

from tests.faults.fleet import LEASE_SECONDS, Fleet
from tests.faults.killing import LONG, Killer, assert_as_if_unbroken
from tests.faults.processes import assert_dead_within

STOPPED_SECONDS = 15.0
"""For a trainer to be dead after its lease has run out."""


def _restart(fleet: Fleet) -> None:
    fleet.valkey.restart()


def _freeze_for_a_while(fleet: Fleet) -> None:
    fleet.valkey.signal(signal.SIGSTOP)


@pytest.mark.parametrize(
    "harm", [_restart, pytest.param(_freeze_for_a_while, marks=pytest.mark.faults)]
)
def test_training_goes_on_without_the_broker(
    fleet: Fleet, rng: random.Random, harm: object
) -> None:
    """Row 4: Redis restarted or frozen mid-training; the worker takes its next job."""
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    following = fleet.submit(fleet.upload(), max_steps=1)
    assert Killer(fleet, job_id, worker, rng).wait_training(rng.randrange(100))
    assert callable(harm)
    harm(fleet)
    assert fleet.wait_status(job_id, "succeeded", "failed")["status"] == "succeeded"
    fleet.valkey.mend()
    assert fleet.wait_status(following, "succeeded", "failed")["status"] == "succeeded"
    assert len(fleet.attempts(job_id)) == 1
    assert worker.alive


def test_a_restart_of_the_database_is_ridden_out(fleet: Fleet, rng: random.Random) -> None:
    """Row 10: within the lease; the same attempt goes on, and no step is lost or told twice."""
    fleet.unbroken_sha256(**LONG)
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    assert Killer(fleet, job_id, worker, rng).wait_training(rng.randrange(100))
    fleet.postgres.restart()
    fleet.wait_status(job_id, "succeeded", "failed")
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert worker.alive
    assert fleet.alive("control")


@pytest.mark.parametrize("freeze", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_without_the_database_a_trainer_stops_with_its_lease(
    fleet: Fleet, rng: random.Random, freeze: bool
) -> None:
    """Row 10: stopped, or frozen with its connections open, for longer than the lease."""
    fleet.unbroken_sha256(**LONG)
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    assert Killer(fleet, job_id, worker, rng).wait_training()
    trainer = worker.busy_trainer()
    assert trainer is not None
    if freeze:
        fleet.postgres.signal(signal.SIGSTOP)
    else:
        fleet.postgres.stop()
    assert_dead_within(LEASE_SECONDS + STOPPED_SECONDS, "a trainer without a lease", [trainer])
    fleet.postgres.mend()
    fleet.wait_status(job_id, "succeeded", "failed")
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["lease_expired", "succeeded"]
    assert worker.alive
    assert fleet.alive("control")
