"""Fine-tuning jobs: the table, and what users' calls read and ask for.

The status is written in `models/transitions.py` alone; claiming and leases are in
`models/leases.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models import events, webhooks
from models.base import Base, Created, Json
from models.scope import Page, owned, page, require
from models.state import Desired, Status
from models.webhooks import EventType


class Job(Created, Base):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_metadata", "labels", postgresql_using="gin"),
        # What workers and reconcilers look for: few rows at any time, however long the history.
        Index(
            "ix_jobs_claimable",
            text("priority DESC"),
            "queued_at",
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_jobs_leased",
            "lease_expires_at",
            postgresql_where=text("status IN ('running', 'validating_files')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=ids.job)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str] = mapped_column(default=Status.VALIDATING)
    desired: Mapped[str] = mapped_column(default=Desired.RUN)
    stop_mode: Mapped[str] = mapped_column(default="save")
    """With `desired` cancel or pause: `save` makes a last checkpoint, `now` does not."""

    # The lease. `fence` rises with each claim; every write of a holder carries it.
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    worker_id: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that broke for no fault of the user's; before it is queued, tries to queue it."""
    failures_without_progress: Mapped[int] = mapped_column(default=0)
    """Crashes in a row since the last new checkpoint; of a validation, claims without an end."""
    not_before: Mapped[datetime | None]
    """Back-off after a lost attempt: not claimable until then."""

    # What was asked for.
    request: Mapped[Json]
    model: Mapped[str]
    task: Mapped[str | None]
    origin: Mapped[Json | None]
    """What it starts from if not a base model: see `models/origins.py`."""
    training_file_id: Mapped[str] = mapped_column(ForeignKey("files.id"))
    validation_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))
    validation_id: Mapped[str | None] = mapped_column(ForeignKey("validations.id"))
    """What `validating_files` waits for."""
    suffix: Mapped[str | None]
    seed: Mapped[int]
    labels: Mapped[dict[str, str] | None]
    """The user's `metadata`; that name is taken by SQLAlchemy."""
    priority: Mapped[int] = mapped_column(default=0)
    requires: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    """Capabilities that a worker must have, such as `cuda`."""

    # What became of it.
    resolved: Mapped[Json | None]
    train_key: Mapped[str | None]
    valid_key: Mapped[str | None]
    phase: Mapped[str | None]
    progress: Mapped[Json | None]
    latest_metrics: Mapped[Json | None]
    best_metrics: Mapped[Json | None]
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[Json | None]
    fine_tuned_model: Mapped[str | None]
    result_files: Mapped[list[Any]] = mapped_column(default=list)
    log_tail: Mapped[str | None]
    estimated_finish: Mapped[datetime | None]
    """Of a running job, as its worker reckons it (`worker/pace.py`)."""
    speed: Mapped[Json | None]
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of the trainer's process, or of its GPU: the most over all attempts."""
    environment: Mapped[Json | None]
    """What the last attempt ran on: `{device, threads, versions, parameters}`."""
    predicted: Mapped[Json | None]
    """What it was thought to take when it was queued (`models/estimates.py`)."""
    cloned_from: Mapped[str | None]
    traceparent: Mapped[str | None]
    """The trace that its submit began (`core/telemetry.py`), as W3C Trace Context writes it."""
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def base_model(self) -> str:
        """The base model at the bottom of it, however many fine-tunings lie between."""
        return self.origin["base_model"] if self.origin else self.model

    @property
    def sure_task(self) -> str | None:
        """The task that was asked for, or that of the model it starts from."""
        asked: str | None = self.request.get("task")
        return asked or (self.origin["task"] if self.origin else None)


def create(session: Session, job: Job) -> Job:
    """Write a new job and its first event."""
    session.add(job)
    session.flush()
    events.add(session, job.id, f"Created fine-tuning job: {job.id}")
    events.add(session, job.id, f"Validating training file: {job.training_file_id}")
    webhooks.announce(session, job.project_id, EventType.CREATED, {"id": job.id})
    return job


def get(session: Session, project_id: str, job_id: str, param: str | None = None) -> Job:
    """One of the project's jobs. Raises NotFound, which points at `param`."""
    statement = owned(Job, project_id).where(Job.id == job_id)
    return require(session.scalar(statement), "fine-tuning job", job_id, param)


def listing(
    session: Session,
    project_id: str,
    *,
    metadata: dict[str, str],
    after: str | None,
    limit: int,
) -> Page[Job]:
    """Newest first, those whose metadata holds all the given pairs."""
    statement = owned(Job, project_id)
    if metadata:
        statement = statement.where(Job.labels.contains(metadata))
    return page(session, statement, Job.id, after=after, limit=limit)


def note_pace(job: Job, seconds_left: float | None, speed: Json | None, memory: int | None) -> None:
    """Write down how a run goes; the caller holds its lease."""
    if seconds_left is not None:
        job.estimated_finish = func.now() + timedelta(seconds=seconds_left)
    if speed is not None:
        job.speed = speed
    if memory is not None:
        job.peak_memory_bytes = max(memory, job.peak_memory_bytes or 0)
