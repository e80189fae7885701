"""The metric series of a job: one row a step and split.

A resumed job computes the steps after its checkpoint again; the rows are replaced by equal ones,
so the series has each step once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ForeignKey, delete, func, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from models.base import Base, Json
from models.scope import Page

Numbers = npt.NDArray[Any]

SPLITS = ("train", "valid")
ROWS = 1000
"""Of one statement, which PostgreSQL lets have 65,535 parameters."""
BLOCK = 4096
"""Points of an outline."""
BUCKET = 16
"""Points of which an outline keeps the least and the greatest."""
STEPS, VALUES = np.dtype("<i4"), np.dtype("<f8")
"""How an outline's numbers are packed."""


class Metric(Base):
    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    values: Mapped[Json]
    created_at: Mapped[datetime]
    """When the trainer measured it, by its machine's clock."""


class Outline(Base):
    """What pictures of a long series are drawn from: of each `BLOCK` points of one name the
    extremes, packed. The points stay the truth; where a series has no outline they are read."""

    __tablename__ = "metric_outlines"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    last_step: Mapped[int] = mapped_column(primary_key=True)
    """Of the block."""
    steps: Mapped[bytes]
    values: Mapped[bytes]


def write(session: Session, job_id: str, points: list[Json]) -> None:
    """Add points `{split, step, values, created_at}`; the caller holds the lease.

    The last of equals stands. Whenever a block may be full, it gets its outline.
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
    if any(point["step"] % BLOCK == 0 for point in points):
        for split in SPLITS:
            while _outline(session, job_id, split):
                pass


def outlined(session: Session, job_id: str, split: str) -> int:
    """The last step that an outline covers; 0 where there is none."""
    statement = select(func.coalesce(func.max(Outline.last_step), 0))
    return session.scalars(statement.where(Outline.job_id == job_id, Outline.split == split)).one()


def _outline(session: Session, job_id: str, split: str) -> bool:
    """Outline the next block; False where there are too few points for one."""
    after = outlined(session, job_id, split)
    points = values_after(session, job_id, split=split, after_step=after, limit=BLOCK)
    if len(points) < BLOCK:
        return False
    for name in dict.fromkeys(name for _, values in points for name in values):
        steps, values = packed(points, name)
        kept = extremes(values)
        session.add(
            Outline(
                job_id=job_id,
                split=split,
                name=name,
                last_step=points[-1][0],
                steps=steps[kept].tobytes(),
                values=values[kept].tobytes(),
            )
        )
    session.flush()
    return True


def values_after(
    session: Session, job_id: str, *, split: str, after_step: int, limit: int | None = None
) -> list[tuple[int, Json]]:
    """(step, values) of the points beyond a step, rising."""
    statement = select(Metric.step, Metric.values).where(
        Metric.job_id == job_id, Metric.split == split, Metric.step > after_step
    )
    rows = session.execute(statement.order_by(Metric.step).limit(limit))
    return [(step, values) for step, values in rows]


def packed(points: Iterable[tuple[int, Json]], name: str) -> tuple[Numbers, Numbers]:
    """The steps and values of those points that have a number of this name."""
    found = [(step, values[name]) for step, values in points if values.get(name) is not None]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps, STEPS), np.array(values, VALUES)


def extremes(values: Numbers) -> Numbers:
    """The places of the first, the last, and the least and the greatest of each bucket: what
    MinMaxLTTB (Van Der Donckt et al., arXiv 2305.00332) has LTTB choose from."""
    whole = len(values) // BUCKET * BUCKET
    buckets = values[:whole].reshape(-1, BUCKET)
    starts = np.arange(0, whole, BUCKET)
    ends = np.array([0, len(values) - 1] if len(values) else [], np.int64)
    rest = np.arange(whole, len(values))
    chosen = (starts + buckets.argmin(axis=1), starts + buckets.argmax(axis=1), ends, rest)
    return np.unique(np.concatenate(chosen)).astype(np.int64)


def forget_after(session: Session, job_id: str, step: int) -> None:
    """Drop points beyond a step: a new attempt goes on from there."""
    session.execute(delete(Metric).where(Metric.job_id == job_id, Metric.step > step))
    session.execute(delete(Outline).where(Outline.job_id == job_id, Outline.last_step > step))


def names(session: Session, job_id: str, split: str | None) -> list[str]:
    """Every name that occurs, by the alphabet."""
    found: set[str] = set()
    for one in SPLITS if split is None else (split,):
        known = select(Outline.name).where(Outline.job_id == job_id, Outline.split == one)
        rest = select(func.jsonb_object_keys(Metric.values)).where(
            Metric.job_id == job_id,
            Metric.split == one,
            Metric.step > outlined(session, job_id, one),
        )
        found |= {*session.scalars(known.distinct()), *session.scalars(rest.distinct())}
    return sorted(found)


def beyond(session: Session, job_id: str, after: dict[str, int], *, limit: int) -> list[Metric]:
    """The first points whose step is above that of their split in `after`, by step and split.

    Each split is read along the table's key: to sort them all would take longer with every page of
    a long series.
    """
    parts = [
        select(
            select(Metric)
            .where(Metric.job_id == job_id, Metric.split == split, Metric.step > step)
            .order_by(Metric.step)
            .limit(limit)
            .subquery()
        )
        for split, step in after.items()
    ]
    both = union_all(*parts).subquery()
    point = aliased(Metric, both)
    statement = select(point).order_by(point.step, point.split).limit(limit)
    return list(session.scalars(statement))


def series(
    session: Session, job_id: str, *, split: str | None, after_step: int, limit: int
) -> Page[Metric]:
    """Oldest first, those with a step above `after_step`.

    Steps are never split between pages, so a page may hold a point or so more than `limit`.
    """
    splits = SPLITS if split is None else (split,)
    after = dict.fromkeys(splits, after_step)
    rows = beyond(session, job_id, after, limit=limit + len(SPLITS))
    end = limit
    while end < len(rows) and rows[end].step == rows[end - 1].step:
        end += 1
    return Page(rows[:end], has_more=len(rows) > end)
