"""Attempts: each claim of a job by a worker, and how it ended."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, extract, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.base import Base


class Attempt(Base):
    __tablename__ = "job_attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    worker_id: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    """`succeeded`, `failed`, `cancelled`, `paused`, `returned` (handed back in order),
    `lease_expired`, `worker_died`, or an infrastructure failure's code."""
    reason: Mapped[str | None]
    resumed_from_step: Mapped[int | None]
    """0 where it began from the start."""
    first_step_at: Mapped[datetime | None]
    """When its first optimizer step was done, by the worker's clock."""
    waited_seconds: Mapped[float | None]
    """For how long the job could have been claimed before it was."""


def begin(
    session: Session, job_id: str, fence: int, worker_id: str, *, ready_at: datetime | None = None
) -> None:
    """`ready_at`: since when the job could be claimed."""
    waited = None if ready_at is None else extract("epoch", func.now() - ready_at)
    attempt = Attempt(job_id=job_id, fence=fence, worker_id=worker_id, waited_seconds=waited)
    session.add(attempt)
    session.flush()


def end(session: Session, job_id: str, fence: int, outcome: str, reason: str | None = None) -> None:
    """Note how an attempt ended. The first word stands: a zombie cannot rewrite it."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.fence == fence, Attempt.ended_at.is_(None))
        .values(ended_at=func.now(), outcome=outcome, reason=reason)
    )


def note(session: Session, job_id: str, fence: int, **values: int | datetime | None) -> None:
    """Write down something of an attempt under way; the caller holds its lease."""
    session.execute(
        update(Attempt).where(Attempt.job_id == job_id, Attempt.fence == fence).values(**values)
    )


def seconds(session: Session, job_id: str) -> float:
    """How long a job's attempts have taken together, the one under way included."""
    spans = func.coalesce(Attempt.ended_at, func.now()) - Attempt.started_at
    statement = select(func.coalesce(func.sum(extract("epoch", spans)), 0))
    return float(session.scalars(statement.where(Attempt.job_id == job_id)).one())


def listing(session: Session, job_id: str) -> list[Attempt]:
    """Oldest first."""
    statement = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)
    return list(session.scalars(statement))


def of_jobs(session: Session, job_ids: list[str]) -> dict[str, list[Attempt]]:
    """Each job's attempts, oldest first; an empty list where there are none."""
    found: dict[str, list[Attempt]] = {job_id: [] for job_id in job_ids}
    statement = select(Attempt).where(Attempt.job_id.in_(job_ids)).order_by(Attempt.fence)
    for attempt in session.scalars(statement):
        found[attempt.job_id].append(attempt)
    return found
