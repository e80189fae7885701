"""The metric series of a job: one row a step and split.

A resumed job computes the steps after its checkpoint again; the rows are replaced by equal ones,
so the series has each step once.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.base import Base, Json
from models.scope import Page

SPLITS = ("train", "valid")
ROWS = 1000
"""Of one statement, which PostgreSQL lets have 65,535 parameters."""


class Metric(Base):
    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    values: Mapped[Json]
    created_at: Mapped[datetime]
    """When the trainer measured it, by its machine's clock."""


def write(session: Session, job_id: str, points: list[Json]) -> None:
    """Add points `{split, step, values, created_at}`; the caller holds the lease.

    The last of equals stands.
    """
    unique = {(point["split"], point["step"]): point | {"job_id": job_id} for point in points}
    rows = list(unique.values())
    for start in range(0, len(rows), ROWS):
        statement = insert(Metric).values(rows[start : start + ROWS])
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["job_id", "split", "step"],
                set_={name: statement.excluded[name] for name in ("values", "created_at")},
            )
        )


def forget_after(session: Session, job_id: str, step: int) -> None:
    """Drop points beyond a step: a new attempt goes on from there."""
    session.execute(delete(Metric).where(Metric.job_id == job_id, Metric.step > step))


def series(
    session: Session, job_id: str, *, split: str | None, after_step: int, limit: int
) -> Page[Metric]:
    """Oldest first, those with a step above `after_step`.

    Steps are never split between pages, so a page may hold a point or so more than `limit`.
    """
    statement = select(Metric).where(Metric.job_id == job_id, Metric.step > after_step)
    if split is not None:
        statement = statement.where(Metric.split == split)
    most = limit + len(SPLITS)
    rows = list(session.scalars(statement.order_by(Metric.step, Metric.split).limit(most)))
    end = limit
    while end < len(rows) and rows[end].step == rows[end - 1].step:
        end += 1
    return Page(rows[:end], has_more=len(rows) > end)
