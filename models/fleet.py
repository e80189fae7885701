"""The whole fleet in numbers, over all projects, as operators watch it: read at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Float, Select, case, func, select
from sqlalchemy.orm import Session

from models import workers
from models.attempts import Attempt
from models.jobs import Job
from models.queue import ALIVE_WITHIN
from models.state import Status
from models.validations import PENDING, Validation
from models.webhook_deliveries import Delivery, DeliveryStatus
from models.workers import Worker

WAIT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""Upper bounds in seconds."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Line:
    """Queued jobs of one task that need the same of a worker."""

    task: str
    requires: str
    jobs: int
    oldest_seconds: float


@dataclass(frozen=True)
class Waits:
    """How long claimed jobs had waited, since the first of them: claims up to each bound."""

    up_to: list[tuple[float, int]]
    count: int
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    jobs: dict[str, int]
    """By status."""
    queue: list[Line]
    waits: Waits
    outcomes: dict[str, int]
    """Attempts that have ended, by how."""
    step_seconds: dict[str, float]
    """Of running jobs, the mean of each task."""
    validations: int
    """That wait or run."""
    deliveries: dict[str, int]
    """Webhooks in the log, by status."""
    oldest_delivery_seconds: float
    """Since it was due, of what is still to be delivered."""
    workers: list[Worker]
    busy: set[str]
    """The ids of workers that hold a job."""


def snapshot(session: Session) -> Snapshot:
    status = select(Job.status, func.count()).group_by(Job.status)
    outcomes = (
        select(Attempt.outcome, func.count())
        .where(Attempt.outcome.is_not(None))
        .group_by(Attempt.outcome)
    )
    pace = 1 / func.nullif(Job.speed["steps_per_second"].astext.cast(Float), 0.0)
    steps = (
        select(func.coalesce(Job.task, UNKNOWN), func.avg(pace))
        .where(Job.status == Status.RUNNING, pace.is_not(None))
        .group_by(Job.task)
    )
    deliveries = select(Delivery.status, func.count()).group_by(Delivery.status)
    due = select(func.extract("epoch", func.now() - func.min(Delivery.next_attempt_at)))
    late = session.scalar(due.where(Delivery.status == DeliveryStatus.PENDING))
    holding = select(Job.worker_id).where(Job.status == Status.RUNNING)
    return Snapshot(
        jobs=dict[str, int].fromkeys(Status, 0) | _counts(session, status),
        queue=_queue(session),
        waits=_waits(session),
        outcomes=_counts(session, outcomes),
        step_seconds={task: float(mean) for task, mean in session.execute(steps)},
        validations=session.scalars(
            select(func.count()).where(Validation.status.in_(PENDING))
        ).one(),
        deliveries=dict[str, int].fromkeys(DeliveryStatus, 0) | _counts(session, deliveries),
        oldest_delivery_seconds=max(0.0, float(late or 0)),
        workers=workers.alive(session, ALIVE_WITHIN),
        busy={worker for worker in session.scalars(holding) if worker is not None},
    )


def _counts(session: Session, statement: Select[Any, int]) -> dict[str, int]:
    return dict(session.execute(statement).all())


def _queue(session: Session) -> list[Line]:
    waited = func.extract("epoch", func.now() - func.min(Job.queued_at))
    rows = session.execute(
        select(func.coalesce(Job.task, UNKNOWN), Job.requires, func.count(), waited)
        .where(Job.status == Status.QUEUED)
        .group_by(Job.task, Job.requires)
    )
    # `requires` is a set: its order, by which rows are told apart, says nothing.
    lines: dict[tuple[str, str], Line] = {}
    for task, requires, count, seconds in rows:
        key = task, ",".join(sorted(requires)) or "any"
        known = lines.get(key, Line(*key, 0, 0.0))
        oldest = max(known.oldest_seconds, float(seconds or 0))
        lines[key] = Line(*key, known.jobs + count, oldest)
    return list(lines.values())


def _waits(session: Session) -> Waits:
    waited = Attempt.waited_seconds
    within = [func.count(case((waited <= bound, 1))) for bound in WAIT_BUCKETS]
    *counts, count, seconds = session.execute(
        select(*within, func.count(waited), func.coalesce(func.sum(waited), 0.0))
    ).one()
    return Waits(list(zip(WAIT_BUCKETS, counts, strict=True)), count, seconds)
