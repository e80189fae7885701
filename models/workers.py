"""Workers that are alive: what they are, and when they were last heard from."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import String, delete, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.base import Base, Created, Json

FORGOTTEN_AFTER = timedelta(days=1)


class Worker(Created, Base):
    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    hostname: Mapped[str]
    capabilities: Mapped[list[str]] = mapped_column(ARRAY(String))
    details: Mapped[Json]
    """Device, memory and library versions, as its trainer reported them."""
    last_seen_at: Mapped[datetime]


def report(
    session: Session, worker_id: str, hostname: str, capabilities: list[str], details: Json
) -> None:
    """Note that a worker is alive, and forget those long gone."""
    values = {
        "hostname": hostname,
        "capabilities": capabilities,
        "details": details,
        "last_seen_at": func.now(),
    }
    session.execute(
        insert(Worker)
        .values(id=worker_id, **values)
        .on_conflict_do_update(index_elements=["id"], set_=values)
    )
    session.execute(delete(Worker).where(Worker.last_seen_at < func.now() - FORGOTTEN_AFTER))


def alive(session: Session, within: timedelta) -> list[Worker]:
    statement = select(Worker).where(Worker.last_seen_at > func.now() - within)
    return list(session.scalars(statement.order_by(Worker.id)))
