"""Reconcilers that are killed, or run twice. Row 23."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from sqlalchemy import func, select

from core.doorbell import train_queue
from models.db import transaction
from models.jobs import Job
from models.registry import FineTunedModel
from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG, assert_as_if_unbroken
from tests.faults.processes import assert_dead_within, wait_for
from tests.rows import claim, make_job
from worker.context import Context
from worker.reconcilers import ALL, clean, reap


@pytest.mark.faults
def test_a_control_that_is_killed_again_and_again_leaves_nothing_stuck(
    fleet: Fleet, rng: random.Random
) -> None:
    """Row 23: kill -9 of control while jobs are validated, queued and reaped; its children die
    with it, and the next one takes up what it left."""
    fleet.unbroken_sha256(**LONG)
    worker = fleet.worker()
    file_id = fleet.upload()
    jobs = [fleet.submit(file_id, **LONG)] + [fleet.submit(file_id, max_steps=1) for _ in range(3)]
    for _ in range(3):
        (control,) = fleet.alive("control")
        children = psutil.Process(control.pid).children(recursive=True)
        wait_for("control is at work", lambda log=control.log: b"ready" in log.read_bytes() or None)
        control.kill()
        assert_dead_within(10, "a child of a killed control", children)
        fleet.start("control")
    worker.kill()  # What is running now is reaped by a control that was started after it began.
    fleet.start_worker(machine=worker.data_dir)
    for job_id in jobs:
        job = fleet.wait_status(job_id, *TERMINAL, seconds=180)
        assert job["status"] == "succeeded", job["error"]
    assert_as_if_unbroken(fleet, jobs[0], **LONG)


@pytest.mark.faults
def test_two_controls_do_nothing_twice(fleet: Fleet) -> None:
    """Row 23: with two of them ticking, a lost job is taken back once."""
    second = fleet.start("control")
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 1)
    worker.kill()
    wait_for("the job is taken back", lambda: fleet.ended_attempts(job_id) or None)
    fleet.start_worker(machine=worker.data_dir)
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["lease_expired", "succeeded"]
    told = [e for e in fleet.events(job_id) if "not heard from any more" in e["message"]]
    assert len(told) == 1
    fleet.end(second)


def test_eight_reapers_at_once_take_each_job_back_once(fleet: Fleet) -> None:
    """Row 23, with the clocks of the fleet's own control out of it."""
    for process in [*fleet.alive("control"), *fleet.alive("worker")]:
        fleet.end(process)
    file_id = fleet.upload()
    made = {
        make_job(fleet.engine, fleet.project, training_file_id=file_id, requires=[])
        for _ in range(20)
    }
    for _ in made:
        claim(fleet.engine, "worker-gone", lease_seconds=0.01)
    context = Context.open(fleet.settings)
    wait_for("all leases have run out", lambda: _expired(fleet) >= len(made) or None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reap.reconcile(context), range(8)))
    for job_id in made:
        assert [a["outcome"] for a in fleet.attempts(job_id)] == ["lease_expired"]
    assert context.doorbell.pending(train_queue([])) >= len(made), "who waits is rung at once"
    context.engine.dispose()


@pytest.mark.faults
def test_cleaning_that_is_cut_off_is_repeated(fleet: Fleet) -> None:
    """Row 23: killed between the bytes and the note that they are gone, then run by two."""
    fleet.worker()
    job_id = fleet.submit(fleet.upload(), max_steps=10)
    model = fleet.wait_status(job_id, *TERMINAL)["fine_tuned_model"]
    prefix = f"jobs/{job_id}"
    assert any("/output/" in key for key in fleet.store.keys(prefix))
    assert fleet.http.delete(f"/models/{model}").is_success
    (control,) = fleet.alive("control")
    fleet.end(control)
    context = Context.open(fleet.settings)
    with fleet.slow_writes("models", "UPDATE", seconds=60, deferred=False):
        killed = fleet.start("control", LUTHIER_CLEAN_SECONDS="0.5")
        wait_for("bytes are gone", lambda: fleet.sleeping_backends() or None)
        killed.kill()
        fleet.end_sleeping_backends()
    assert not any("/output/" in key for key in fleet.store.keys(prefix))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: clean.reconcile(context), range(4)))
    with transaction(fleet.engine) as session:
        row = session.get(FineTunedModel, model)
        assert row is not None
        assert row.removed_at is not None
    context.engine.dispose()


@pytest.mark.faults
def test_every_reconciler_may_run_beside_itself(fleet: Fleet) -> None:
    """Row 23."""
    fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    context = Context.open(fleet.settings)
    rounds = [reconciler for reconciler in ALL for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda reconciler: reconciler.reconcile(context), rounds))
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
    assert len(fleet.attempts(job_id)) == 1
    context.engine.dispose()


def _expired(fleet: Fleet) -> int:
    with transaction(fleet.engine) as session:
        statement = select(func.count()).where(
            Job.worker_id == "worker-gone", Job.lease_expires_at < func.now()
        )
        return session.scalars(statement).one()
