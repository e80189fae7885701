"""What users ask of a job after it was made: cancel, pause, resume."""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import Conflict
from models import events, transitions
from models.jobs import Job
from models.scope import owned, require
from models.state import TERMINAL, Desired, Status


def ask(session: Session, project_id: str, job_id: str, desired: Desired, mode: str) -> Job:
    """Carry out a user's cancel, pause or resume as far as it can be done from here.

    A running job is only asked: its worker reads `desired` at the next heartbeat and stops it. In
    every other state the transition is made at once. Raises Conflict where it makes no sense.
    """
    statement = owned(Job, project_id).where(Job.id == job_id).with_for_update()
    job = require(session.scalar(statement), "fine-tuning job", job_id)
    reached = {Desired.CANCEL: Status.CANCELLED, Desired.PAUSE: Status.PAUSED}.get(desired)
    if job.status == reached:
        return job
    if job.status in TERMINAL:
        raise Conflict(
            f"Job {job.id} has {job.status} already and cannot be changed any more.",
            code="job_finished",
        )
    if desired is Desired.PAUSE and job.status == Status.VALIDATING:
        raise Conflict(
            f"Job {job.id} is still validating its files. Pause it once it is queued or running.",
            code="job_validating",
        )
    if job.desired == Desired.CANCEL and desired is not Desired.CANCEL:
        raise Conflict(f"Job {job.id} is being cancelled already.", code="job_cancelling")
    job.desired, job.stop_mode = desired, mode
    session.flush()
    if job.status == Status.RUNNING:
        if desired is not Desired.RUN:
            events.add(session, job.id, f"Asked to {desired}; the worker stops after this step.")
    elif reached is not None:
        transitions.move(session, job, reached)
    elif job.status == Status.PAUSED:
        transitions.move(session, job, Status.QUEUED)
    return job
