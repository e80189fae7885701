"""A job's events: what happened, in words, in an order that only rises."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models.base import Base, Created, Json
from models.scope import Page, page, require


class Event(Created, Base):
    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_position", "job_id", "position"),)

    position: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    """Rises within a job in the order of commits: each writer holds the job's row lock."""
    id: Mapped[str] = mapped_column(unique=True, default=ids.event)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    level: Mapped[str]
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[Json]


def add(
    session: Session,
    job_id: str,
    message: str,
    *,
    level: str = "info",
    type: str = "message",
    data: Json | None = None,
    event_id: str | None = None,
) -> None:
    """Tell something of a job; the caller holds its row's lock, or has just made it.

    With `event_id` it may be told again, as when a commit's answer was lost: it stands once.
    """
    values = {"id": event_id or ids.event(), "level": level, "type": type, "data": data or {}}
    statement = insert(Event).values(job_id=job_id, message=message, **values)
    session.execute(statement.on_conflict_do_nothing(index_elements=["id"]))


def steps_told(session: Session, job_id: str) -> dict[str, int]:
    """Up to which step a job's events have told its metrics, by split."""
    split, step = Event.data["split"].astext, Event.data["step"].as_integer()
    statement = select(split, func.max(step)).where(Event.job_id == job_id, Event.type == "metrics")
    return {row[0]: row[1] for row in session.execute(statement.group_by(split))}


def listing(session: Session, job_id: str, *, after: str | None, limit: int) -> Page[Event]:
    """Newest first; `after` is an event's id. The caller has checked whose job it is."""
    statement = select(Event).where(Event.job_id == job_id)
    position = None
    if after is not None:
        cursor = session.scalar(
            select(Event.position).where(Event.id == after, Event.job_id == job_id)
        )
        position = require(cursor, "event", after, "after")
    return page(session, statement, Event.position, after=position, limit=limit)
