"""What jobs were thought to take and what they took: the next estimates are set right by it."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.base import Base, Created, Json
from models.jobs import Job
from models.parts import Extent, Parts
from models.spec import ResolvedSpec

MEASURED = ("step", "evaluation", "save", "finish")
"""Parts that are measured one by one; what is left of a run's time is its start."""
NEWEST = 20
"""Runs that an estimate looks at."""


class PastRun(Created, Base):
    __tablename__ = "past_runs"
    __table_args__ = (Index("ix_past_runs_task_created_at", "task", "created_at"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    task: Mapped[str]
    model: Mapped[str]
    tuning: Mapped[str]
    device: Mapped[str]
    figures: Mapped[Json]
    """`{rough, true}`: the parts of a run in seconds (`models/estimates.py`), before past runs were
    looked at and as they were measured. `true` lacks what the run did not have."""
    seconds: Mapped[float]
    predicted_seconds: Mapped[float | None]
    """As the job was told when it was queued."""
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    predicted_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)

    @property
    def error(self) -> float | None:
        """How far the prediction was off, as a share of the truth."""
        if self.predicted_seconds is None or not self.seconds:
            return None
        return abs(self.predicted_seconds - self.seconds) / self.seconds


def remember(session: Session, job_id: str, true: dict[str, float]) -> None:
    """Keep what a job took that has succeeded; `true` are its parts as they were measured.

    Nothing is kept of a run that was interrupted or stopped early: its length says nothing of
    others'.
    """
    job = session.get_one(Job, job_id)
    whole = job.resolved and (job.progress or {}).get("step") == job.resolved["total_steps"]
    if job.attempts != 1 or not whole or job.predicted is None or job.environment is None:
        return
    assert job.finished_at is not None
    assert job.started_at is not None
    spec = ResolvedSpec.model_validate(job.resolved)
    seconds = (job.finished_at - job.started_at).total_seconds()
    extent = Extent.of(spec)
    rest = extent.seconds(Parts(start=0.0, **{name: true.get(name, 0.0) for name in MEASURED}))
    session.add(
        PastRun(
            job_id=job.id,
            task=spec.task,
            model=spec.model,
            tuning=spec.tuning,
            device=job.environment["device"],
            figures={
                "rough": job.predicted["rough"],
                "rough_memory": job.predicted["rough_memory_bytes"],
                "true": true | {"start": max(0.0, seconds - rest)},
            },
            seconds=seconds,
            predicted_seconds=job.predicted["seconds"],
            peak_memory_bytes=job.peak_memory_bytes,
            predicted_memory_bytes=job.predicted["peak_memory_bytes"],
        )
    )


def alike(
    session: Session, *, task: str, model: str, tuning: str, device: str | None
) -> list[PastRun]:
    """The newest runs of the task on the device (of None: on any); those of the same model and
    tuning alone, if there are any."""
    statement = select(PastRun).where(PastRun.task == task)
    if device is not None:
        statement = statement.where(PastRun.device == device)
    newest = statement.order_by(PastRun.created_at.desc()).limit(NEWEST)
    same = newest.where(PastRun.model == model, PastRun.tuning == tuning)
    return list(session.scalars(same)) or list(session.scalars(newest))
