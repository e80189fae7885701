"""Predictions: a fine-tuned model tried on one input, by a control worker. Each is one row, claimed
by a lease and a fence as a validation is, and kept for a day."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Index,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models.base import Base, Created, Json, storable
from models.data_spec import Strict
from models.leases import LeaseLost, Wish
from models.scope import owned, require
from models.state import Desired

KEPT = timedelta(days=1)

Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


Language = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class TextInput(Strict):
    """One text, or two: a pair of sentences, or a question and what it is asked about. Of one to
    translate its languages, where the model knows several: its own codes, or tags such as `de`."""

    text: Text
    text_pair: Text | None = None
    source_language: Language | None = None
    target_language: Language | None = None


class ChatMessage(Strict):
    role: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    content: Annotated[str, StringConstraints(max_length=20_000)]


class ChatInput(Strict):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=100)]


class FileInput(Strict):
    file: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """An uploaded picture or recording."""


class PredictionRequest(Strict):
    """The body of POST /v1/predictions."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    input: Text | TextInput | ChatInput | FileInput
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 128
    """Of a text that the model writes."""


class PredictionStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


PENDING = (PredictionStatus.QUEUED, PredictionStatus.RUNNING)


class Prediction(Created, Base):
    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_created_at", "created_at"),
        Index(
            "ix_predictions_pending",
            "id",
            postgresql_where=sql("status IN ('queued', 'running')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: ids.new("pred-"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    model_id: Mapped[str]
    request: Mapped[Json]
    status: Mapped[str] = mapped_column(default=PredictionStatus.QUEUED)
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    tries: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    output: Mapped[Json | None]
    """`{result}`: what the model says, in the form of its task's pipeline."""
    error: Mapped[Json | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    def asked(self) -> PredictionRequest:
        return PredictionRequest.model_validate(self.request)


def create(session: Session, project_id: str, asked: PredictionRequest) -> Prediction:
    """A new prediction, queued. The caller has checked model and file."""
    row = Prediction(project_id=project_id, model_id=asked.model, request=asked.model_dump())
    session.add(row)
    session.flush()
    return row


def get(session: Session, project_id: str, prediction_id: str) -> Prediction:
    """One of the project's predictions. Raises NotFound."""
    statement = owned(Prediction, project_id).where(Prediction.id == prediction_id)
    return require(session.scalar(statement), "prediction", prediction_id)


def _free() -> ColumnElement[bool]:
    return Prediction.status.in_(PENDING) & or_(
        Prediction.lease_expires_at.is_(None), Prediction.lease_expires_at < func.now()
    )


def claim(session: Session, prediction_id: str, lease_seconds: float) -> Prediction | None:
    """Take a prediction that nobody holds; None if somebody does, or it has ended."""
    statement = select(Prediction).where(_free(), Prediction.id == prediction_id)
    row = session.scalar(statement.with_for_update(skip_locked=True))
    if row is not None:
        row.status = PredictionStatus.RUNNING
        row.fence += 1
        row.tries += 1
        row.started_at = func.coalesce(Prediction.started_at, func.now())
        row.lease_expires_at = func.now() + timedelta(seconds=lease_seconds)
        session.flush()
        session.refresh(row)
    return row


def _held(prediction_id: str, fence: int) -> ColumnElement[bool]:
    return (
        (Prediction.id == prediction_id)
        & (Prediction.fence == fence)
        & (Prediction.status == PredictionStatus.RUNNING)
    )


def renew(session: Session, prediction_id: str, fence: int, lease_seconds: float) -> Wish:
    """The heartbeat. Raises LeaseLost."""
    until = func.now() + timedelta(seconds=lease_seconds)
    _write(session, prediction_id, fence, lease_expires_at=until)
    return Wish(Desired.RUN, "now")


def end(
    session: Session, prediction_id: str, fence: int, *, output: Json | None, error: Json | None
) -> None:
    """The holder's last write. Raises LeaseLost."""
    status = PredictionStatus.SUCCEEDED if error is None else PredictionStatus.FAILED
    values = {"output": storable(output), "error": storable(error), "finished_at": func.now()}
    _write(session, prediction_id, fence, status=status, lease_expires_at=None, **values)


def give_back(session: Session, prediction_id: str, fence: int) -> None:
    """Hand a claim back in order, as on a deploy: it counts as no try. Raises LeaseLost."""
    values = {"status": PredictionStatus.QUEUED, "tries": Prediction.tries - 1}
    _write(session, prediction_id, fence, lease_expires_at=None, **values)


def _write(session: Session, prediction_id: str, fence: int, **values: Any) -> None:
    statement = update(Prediction).where(_held(prediction_id, fence)).values(**values)
    if session.scalar(statement.returning(Prediction.id)) is None:
        raise LeaseLost(f"The lease of {prediction_id} at fence {fence} is lost.")


def waiting(session: Session, limit: int = 100) -> list[str]:
    """Those to ring for, oldest first."""
    free = select(Prediction.id).where(_free()).order_by(Prediction.id)
    return list(session.scalars(free.limit(limit)))


def forget(session: Session) -> None:
    """Drop those older than a day: what was tried is no record."""
    session.execute(delete(Prediction).where(Prediction.created_at < func.now() - KEPT))
