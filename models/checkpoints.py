"""Published checkpoints: a row appears only once all of its files are stored and verified."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models import webhooks
from models.base import Base, Created, Json
from models.jobs import Job
from models.registry import FineTunedModel
from models.scope import Page, page, require
from models.webhooks import EventType


class Checkpoint(Created, Base):
    __tablename__ = "checkpoints"
    __table_args__ = (Index("ix_checkpoints_job_id_id", "job_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=ids.checkpoint)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    fence: Mapped[int] = mapped_column(BigInteger)
    step: Mapped[int]
    model_id: Mapped[str]
    """The name under which its weights can be fetched: `ft:…:ckpt-step-N`."""
    prefix: Mapped[str]
    """Its files lie in storage under `prefix/path`."""
    files: Mapped[list[Any]]
    """`[{path, bytes, sha256}]`, the manifest among them."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[Json]
    reason: Mapped[str]
    best: Mapped[bool] = mapped_column(default=False)
    deleted_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    """When cleaning had removed its bytes."""


def add(session: Session, checkpoint: Checkpoint) -> None:
    """Publish; the caller holds the lease of its job."""
    session.add(checkpoint)
    session.flush()
    project = select(Job.project_id).where(Job.id == checkpoint.job_id)
    data = {"id": checkpoint.id, "job": checkpoint.job_id, "step_number": checkpoint.step}
    webhooks.announce(session, session.scalars(project).one(), EventType.CHECKPOINT, data)


def listing(session: Session, job_id: str, *, after: str | None, limit: int) -> Page[Checkpoint]:
    """Newest first, without those whose models were deleted. The caller has checked whose job it
    is."""
    deleted = select(FineTunedModel.id).where(
        FineTunedModel.id == Checkpoint.model_id, FineTunedModel.deleted_at.is_not(None)
    )
    statement = select(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None), ~deleted.exists()
    )
    if after is not None:
        cursor = session.scalar(statement.where(Checkpoint.id == after))
        require(cursor, "checkpoint", after, "after")
    return page(session, statement, Checkpoint.id, after=after, limit=limit)


def newest_first(session: Session, job_id: str) -> list[Checkpoint]:
    """All live checkpoints of a job, the best place to resume from first."""
    statement = select(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None)
    )
    return list(session.scalars(statement.order_by(Checkpoint.step.desc(), Checkpoint.id.desc())))


def published(session: Session, job_id: str, fence: int, step: int) -> bool:
    """Whether this attempt has published this step already."""
    statement = select(Checkpoint.id).where(
        Checkpoint.job_id == job_id, Checkpoint.fence == fence, Checkpoint.step == step
    )
    return session.scalar(statement) is not None


def supersede(session: Session, job_id: str, step: int) -> None:
    """Hide an earlier attempt's checkpoint of a step that is published anew."""
    statement = select(Checkpoint.id).where(
        Checkpoint.job_id == job_id, Checkpoint.step == step, Checkpoint.deleted_at.is_(None)
    )
    for checkpoint_id in session.scalars(statement):
        discard(session, checkpoint_id)


def discard(session: Session, checkpoint_id: str) -> None:
    """Hide a checkpoint and its model: retention, or its bytes proved corrupt."""
    model_id = session.scalar(
        update(Checkpoint)
        .where(Checkpoint.id == checkpoint_id)
        .values(deleted_at=func.now())
        .returning(Checkpoint.model_id)
    )
    session.execute(delete(FineTunedModel).where(FineTunedModel.id == model_id))
