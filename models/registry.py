"""Fine-tuned models: a name `ft:base:project:suffix:id`, and the files that it stands for."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, func, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.base import Base, Created, Json
from models.scope import Page, owned, page, require


class FineTunedModel(Created, Base):
    __tablename__ = "models"
    __table_args__ = (Index("ix_models_project_id_created_at", "project_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    base_model: Mapped[str]
    task: Mapped[str]
    step: Mapped[int | None]
    """Set for a checkpoint's model."""
    prefix: Mapped[str]
    files: Mapped[list[Any]]
    """`[{path, bytes, sha256}]`, ordered by path."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[Json]
    deleted_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    """When cleaning had removed its bytes."""


def name(
    base_model: str, project: str, suffix: str | None, job_id: str, step: int | None = None
) -> str:
    """`ft:base:project:suffix:unique`, unique by the job's own id; of a checkpoint, its step too.

    The base keeps only its last path segment without a revision, as OpenAI's names do.
    """
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", base_model.split("@")[0].rsplit("/", 1)[-1])
    words = [re.sub(r"[^A-Za-z0-9._-]+", "-", word) for word in (project, suffix or "")]
    unique = job_id.removeprefix("ftjob-")
    step_part = f":ckpt-step-{step}" if step is not None else ""
    return f"ft:{base}:{words[0]}:{words[1]}:{unique}{step_part}"


def add(session: Session, model: FineTunedModel) -> None:
    session.add(model)
    session.flush()


def get(session: Session, project_id: str, model_id: str) -> FineTunedModel:
    """One of the project's models. Raises NotFound."""
    statement = owned(FineTunedModel, project_id).where(FineTunedModel.id == model_id)
    return require(session.scalar(statement), "model", model_id, "model")


def listing(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 10_000
) -> Page[FineTunedModel]:
    """The project's finished models, newest first; checkpoints' are reached by their names."""
    statement = owned(FineTunedModel, project_id).where(FineTunedModel.step.is_(None))
    moment = get(session, project_id, after).created_at if after is not None else None
    return page(session, statement, FineTunedModel.created_at, after=moment, limit=limit)


def delete(session: Session, project_id: str, model_id: str) -> None:
    """Hide a model from every read; cleaning takes its bytes. Raises NotFound."""
    row = get(session, project_id, model_id)
    session.execute(
        update(FineTunedModel).where(FineTunedModel.id == row.id).values(deleted_at=func.now())
    )
