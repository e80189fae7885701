"""The state machine: exactly the legal moves, each under its fence."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import text

from core.errors import Conflict, NotFound
from models import control, transitions
from models.db import Engine, transaction
from models.state import NEXT, TERMINAL, Desired, Status
from tests.rows import claim, make_job, make_project, read_job

LEGAL = {
    ("validating_files", "queued"),
    ("queued", "running"),
    ("running", "succeeded"),
    ("validating_files", "failed"),
    ("queued", "failed"),
    ("running", "failed"),
    ("validating_files", "cancelled"),
    ("queued", "cancelled"),
    ("running", "cancelled"),
    ("running", "paused"),
    ("paused", "queued"),
    ("queued", "paused"),
    ("paused", "cancelled"),
    ("running", "queued"),
}


@pytest.fixture(scope="module")
def project(engine: Engine) -> str:
    return make_project(engine)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(Status, Status)))
def test_only_legal_moves_are_made(
    engine: Engine, project: str, source: Status, target: Status
) -> None:
    job_id = make_job(engine, project)
    with transaction(engine) as session:
        session.execute(
            text("UPDATE jobs SET status = :status, fence = 7 WHERE id = :id"),
            {"status": source, "id": job_id},
        )
    with transaction(engine) as session:
        moved = transitions.apply(session, job_id, target, fence=7)
    assert (moved is not None) == ((source, target) in LEGAL)
    assert read_job(engine, job_id).status == (target if moved else source)


def test_nothing_leaves_a_terminal_state() -> None:
    assert all(not NEXT[status] for status in TERMINAL)


def test_a_move_under_another_fence_is_refused(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    with transaction(engine) as session:
        assert transitions.apply(session, job_id, Status.CANCELLED, fence=1) is None
    assert read_job(engine, job_id).status == "queued"


def test_a_queued_job_is_cancelled_at_once_and_never_claimed(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    with transaction(engine) as session:
        job = control.ask(session, project, job_id, Desired.CANCEL, "save")
    assert job.status == "cancelled"
    assert job.finished_at is not None


def test_cancelling_twice_gives_the_same_answer(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    for _ in range(2):
        with transaction(engine) as session:
            assert (
                control.ask(session, project, job_id, Desired.CANCEL, "save").status == "cancelled"
            )


def test_pause_and_resume_of_a_queued_job(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    with transaction(engine) as session:
        assert control.ask(session, project, job_id, Desired.PAUSE, "save").status == "paused"
    with transaction(engine) as session:
        job = control.ask(session, project, job_id, Desired.RUN, "save")
        assert (job.status, job.desired) == ("queued", "run")


def test_what_makes_no_sense_is_a_conflict(engine: Engine, project: str) -> None:
    finished = make_job(engine, project)
    validating = make_job(engine, project, queued=False)
    with transaction(engine) as session:
        control.ask(session, project, finished, Desired.CANCEL, "save")
    for job_id, desired, code in [
        (finished, Desired.RUN, "job_finished"),
        (finished, Desired.PAUSE, "job_finished"),
        (validating, Desired.PAUSE, "job_validating"),
    ]:
        with pytest.raises(Conflict) as caught, transaction(engine) as session:
            control.ask(session, project, job_id, desired, "save")
        assert caught.value.error_code == code


def test_a_running_job_that_is_being_cancelled_cannot_be_resumed(
    engine: Engine, project: str
) -> None:
    with transaction(engine) as session:
        session.execute(text("UPDATE jobs SET status = 'cancelled'"))
    job_id = make_job(engine, project)
    claim(engine)
    with transaction(engine) as session:
        assert control.ask(session, project, job_id, Desired.CANCEL, "now").status == "running"
    with pytest.raises(Conflict, match="being cancelled"), transaction(engine) as session:
        control.ask(session, project, job_id, Desired.RUN, "save")


def test_another_projects_job_cannot_be_touched(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    stranger = make_project(engine, "stranger")
    with pytest.raises(NotFound), transaction(engine) as session:
        control.ask(session, stranger, job_id, Desired.CANCEL, "save")
