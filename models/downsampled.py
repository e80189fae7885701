"""A series with few points that looks like the whole one: LTTB (Steinarsson, Downsampling Time
Series for Visual Representation, 2013), which keeps the points that span the largest triangles.

Of a long series it chooses from its outlines and the points after them (`models/metrics.py`), so
that a million points are read as a hundred thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session
from tsdownsample import LTTBDownsampler

from models.metrics import (
    SPLITS,
    STEPS,
    VALUES,
    Numbers,
    Outline,
    outlined,
    packed,
    values_after,
)

LEAST_POINTS = 3
"""That LTTB can give: the first, the last, and one between them."""


@dataclass(frozen=True)
class Series:
    name: str
    split: str
    steps: Numbers
    values: Numbers


def read(
    session: Session,
    job_id: str,
    *,
    points: int,
    split: str | None = None,
    names: list[str] | None = None,
    after_step: int = -1,
) -> list[Series]:
    """Every series of the job, each by at most `points` of its points; of a split or of some names
    alone, if they are given."""
    return [
        _fewer(series, points)
        for one in SPLITS
        if split in (None, one)
        for series in _candidates(session, job_id, one, names, after_step)
    ]


def _candidates(
    session: Session, job_id: str, split: str, names: list[str] | None, after_step: int
) -> list[Series]:
    """Each series by its outlines' points, then by all that came after them."""
    found: dict[str, list[tuple[Numbers, Numbers]]] = {}
    statement = select(Outline.name, Outline.steps, Outline.values).where(
        Outline.job_id == job_id, Outline.split == split, Outline.last_step > after_step
    )
    if names is not None:
        statement = statement.where(Outline.name.in_(names))
    rows = session.execute(statement.order_by(Outline.name, Outline.last_step))
    for name, packed_steps, packed_values in rows:
        pair = np.frombuffer(packed_steps, STEPS), np.frombuffer(packed_values, VALUES)
        found.setdefault(name, []).append(pair)
    start = max(after_step, outlined(session, job_id, split))
    rest = values_after(session, job_id, split=split, after_step=start)
    for name in dict.fromkeys(name for _, values in rest for name in values):
        if names is None or name in names:
            found.setdefault(name, []).append(packed(rest, name))
    series = []
    for name, parts in sorted(found.items()):
        steps = np.concatenate([steps for steps, _ in parts])
        values = np.concatenate([values for _, values in parts])
        wanted = steps > after_step
        series.append(Series(name, split, steps[wanted], values[wanted]))
    return series


def _fewer(series: Series, points: int) -> Series:
    if len(series.steps) <= points:
        return series
    kept = LTTBDownsampler().downsample(  # type: ignore[no-untyped-call]
        series.steps, series.values, n_out=points
    )
    return Series(series.name, series.split, series.steps[kept], series.values[kept])
