"""How soon a trainer's records stand in the database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from models import metrics
from models.db import Disconnected, sync_engine, transaction
from tests.rows import claim, make_job, make_project
from worker.context import Context
from worker.reports import Record, Reports

EVERY = 2.0
"""Seconds; longer than it is, so that a busy machine is still quick beside it."""


@pytest.fixture(autouse=True)
def _slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.reports.WRITE_EVERY_SECONDS", EVERY)


@pytest.fixture(scope="module")
def context(context_with: Callable[..., Context]) -> Context:
    return context_with()


@pytest.fixture
def reports(context: Context) -> Reports:
    job_id = make_job(
        context.engine,
        make_project(context.engine),
        resolved={
            "total_steps": 40,
            "steps_per_epoch": 40,
            "metric": "accuracy",
            "greater_is_better": True,
        },
    )
    job = claim(context.engine, lease_seconds=300)
    assert job.id == job_id
    return Reports(context, job, {})


def measured(step: int) -> Record:
    values = {"loss": 1.0}
    return {
        "type": "metrics",
        "time": time.time(),
        "split": "train",
        "step": step,
        "values": values,
    }


def steps(reports: Reports) -> list[int]:
    job = reports._job
    with transaction(reports._context.engine) as session:
        page = metrics.series(session, job.id, split=None, after_step=0, limit=100)
    return [point.step for point in page.rows]


def test_the_first_after_a_pause_at_once_and_those_that_come_fast_together(
    reports: Reports,
) -> None:
    assert reports.due_in == inf
    time.sleep(EVERY)
    reports.add(measured(1))
    assert reports.due_in == 0
    reports.flush()
    assert steps(reports) == [1]
    for step in (2, 3):
        reports.add(measured(step))
        reports.flush()
    assert steps(reports) == [1]
    assert 0 < reports.due_in <= EVERY
    time.sleep(reports.due_in)
    reports.flush()
    assert steps(reports) == [1, 2, 3]
    assert reports.due_in == inf


def test_a_database_that_is_away_is_not_asked_without_pause(
    reports: Reports, tmp_path: Path
) -> None:
    there = reports._context
    gone = sync_engine(f"postgresql://nobody@/none?host={tmp_path}")
    reports._context = replace(there, engine=gone)
    time.sleep(EVERY)
    reports.add(measured(1))
    with pytest.raises(Disconnected):
        reports.flush()
    assert reports.due_in > 0
    reports.flush()  # not yet
    reports._context = there
    time.sleep(EVERY)
    reports.flush()
    assert steps(reports) == [1]
