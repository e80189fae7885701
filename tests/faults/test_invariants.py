"""The invariants see damage: else they would prove nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.invariants import check


@pytest.fixture(scope="module")
def done() -> list[str]:
    """Filled by the first test that asks for `job_id`."""
    return []


@pytest.fixture
def job_id(fleet: Fleet, done: list[str]) -> str:
    if not done:
        fleet.worker()
        done.append(fleet.submit(fleet.upload(), max_steps=10))
        assert fleet.wait_status(done[0], *TERMINAL)["status"] == "succeeded"
    return done[0]


SQL = {
    "running without a lease": (
        "UPDATE jobs SET status = 'running' WHERE id = '{job}'",
        "UPDATE jobs SET status = 'succeeded' WHERE id = '{job}'",
    ),
    "nobody would ever claim it": (
        "UPDATE jobs SET status = 'queued', desired = 'cancel' WHERE id = '{job}'",
        "UPDATE jobs SET status = 'succeeded', desired = 'run' WHERE id = '{job}'",
    ),
    "lacks the steps [4, ": (
        "UPDATE job_metrics SET step = 40 WHERE job_id = '{job}' AND step = 4",
        "UPDATE job_metrics SET step = 4 WHERE job_id = '{job}' AND step = 40",
    ),
    "9 of 10 steps": (
        "UPDATE job_metrics SET split = 'other' WHERE job_id = '{job}' AND step = 10",
        "UPDATE job_metrics SET split = 'train' WHERE job_id = '{job}' AND step = 10",
    ),
    "ended more than once": (
        "INSERT INTO job_events (id, job_id, level, type, message, data) VALUES ('twice', '{job}',"
        """ 'info', 'message', '', '{{"status": "failed", "fence": 9}}')""",
        "DELETE FROM job_events WHERE id = 'twice'",
    ),
    "steps twice or out of order": (
        "INSERT INTO job_events (id, job_id, level, type, message, data) VALUES ('twice', '{job}',"
        """ 'info', 'metrics', '', '{{"step": 1, "train_loss": 1}}')""",
        "DELETE FROM job_events WHERE id = 'twice'",
    ),
    "overlap": (
        "INSERT INTO job_attempts (job_id, fence, worker_id, started_at, ended_at)"
        " SELECT job_id, fence + 1, worker_id, started_at, ended_at FROM job_attempts"
        " WHERE job_id = '{job}'",
        "DELETE FROM job_attempts WHERE job_id = '{job}' AND fence = 3",
    ),
    "its fence fell": (
        "UPDATE jobs SET fence = 1 WHERE id = '{job}'",
        "UPDATE jobs SET fence = 2 WHERE id = '{job}'",
    ),
}


@pytest.mark.parametrize("told", SQL)
def test_damaged_rows_are_seen(fleet: Fleet, job_id: str, told: str) -> None:
    damage, mend = (statement.format(job=job_id) for statement in SQL[told])
    with fleet.engine.begin() as connection:
        connection.exec_driver_sql(damage)
    found = check(fleet, seconds=0)
    with fleet.engine.begin() as connection:
        connection.exec_driver_sql(mend)
    assert any(told in violation for violation in found), found


@contextmanager
def _damaged_weights(fleet: Fleet, job_id: str) -> Iterator[None]:
    key = next(k for k in fleet.store.keys(f"jobs/{job_id}") if k.endswith("model.safetensors"))
    whole = fleet.store.read_bytes(key)
    fleet.store.write_bytes(key, whole[:-1] + b"x")
    yield
    fleet.store.write_bytes(key, whole)


@contextmanager
def _half_an_object(fleet: Fleet, job_id: str) -> Iterator[None]:
    # Below a file, so that no sweep can take it.
    stuck = fleet.folder / "storage" / "stuck#1"
    stuck.mkdir()
    yield
    stuck.rmdir()


@contextmanager
def _an_orphan(fleet: Fleet, job_id: str) -> Iterator[None]:
    with subprocess.Popen(["sleep", "600"], cwd=fleet.folder) as orphan:
        yield
        orphan.kill()


@contextmanager
def _a_folder_left(fleet: Fleet, job_id: str) -> Iterator[None]:
    left: Path = fleet.alive("worker")[0].data_dir / "worker" / "jobs" / f"{job_id}.1"
    left.mkdir()
    yield
    left.rmdir()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_damaged_weights, "has SHA-256"),
        (_half_an_object, "half-written"),
        (_an_orphan, "orphaned process"),
        (_a_folder_left, "which is over"),
    ],
)
def test_damage_outside_the_database_is_seen(
    fleet: Fleet, job_id: str, damage: Callable[[Fleet, str], object], told: str
) -> None:
    with damage(fleet, job_id):  # type: ignore[attr-defined]
        found = check(fleet, seconds=0)
    assert any(told in violation for violation in found), found
