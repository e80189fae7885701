"""The one place that writes a job's status.

Every change names the fence under which it is made, and applies only if the job still has that
fence and a state from which the new one may follow. The event that tells of it is written in the
same transaction, and so is what the project's webhooks are told.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from models import events, webhooks
from models.base import Json
from models.jobs import Job
from models.state import TERMINAL, Status, sources
from models.webhooks import EventType

MESSAGES = {
    Status.QUEUED: "The job is queued.",
    Status.RUNNING: "The job is running.",
    Status.PAUSED: "The job is paused. It keeps its checkpoints; resume it to go on.",
    Status.SUCCEEDED: "The job has successfully completed",
    Status.FAILED: "The job has failed.",
    Status.CANCELLED: "The job was cancelled.",
}


def apply(
    session: Session,
    job_id: str,
    to: Status,
    *,
    fence: int,
    new_fence: int | None = None,
    message: str | None = None,
    level: str = "info",
    data: Json | None = None,
    **values: Any,
) -> Job | None:
    """Move a job to `to` if its fence is still `fence`; None when it is not, or may not.

    A claim gives `new_fence`. `values` are further columns, written by the same statement.
    """
    if to is not Status.RUNNING:
        values |= {
            "worker_id": None,
            "lease_expires_at": None,
            "phase": None,
            "estimated_finish": None,
        }
    if new_fence is not None:
        values["fence"] = new_fence
    if to is Status.QUEUED:
        values["queued_at"] = func.now()
    if to in TERMINAL:
        values["finished_at"] = func.now()
    row = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.fence == fence, Job.status.in_(sources(to)))
        .values(status=to, **values)
        .returning(Job)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if row is not None:
        events.add(
            session,
            job_id,
            message or MESSAGES[to],
            level="error" if to is Status.FAILED else level,
            data={"status": to, "fence": row.fence} | (data or {}),
        )
        webhooks.announce(session, row.project_id, EventType.of_job(to), {"id": job_id})
    return row


def move(session: Session, job: Job, to: Status, **values: Any) -> None:
    """A transition of a job whose row this transaction has locked, so that it cannot be refused."""
    if apply(session, job.id, to, fence=job.fence, **values) is None:
        raise RuntimeError(f"{job.id}: {job.status} may not become {to}")
