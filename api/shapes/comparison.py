"""Jobs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from api.shapes.base import Identified, Shape
from api.shapes.jobs import FineTuningJob
from core.clock import now, unix
from models.state import Status

LEFT_OUT = ("labels",)
"""What says no more than the data's hash beside it."""


class ComparedJob(Identified):
    status: Status
    fine_tuned_model: str | None
    best: dict[str, Any] | None
    latest: dict[str, Any] | None
    seconds: int | None
    """Since it was first begun, up to its end if it has one."""
    resolved: dict[str, Any] | None


class Difference(Shape):
    path: str
    """Such as `resolved.learning_rate` or `provenance.versions.torch`."""
    values: list[Any]
    """One a job, in their order; None where a job has none."""


class Comparison(Shape):
    object: Literal["fine_tuning.comparison"] = "fine_tuning.comparison"
    jobs: list[ComparedJob]
    differences: list[Difference]


def comparison(jobs: Sequence[FineTuningJob]) -> Comparison:
    """Of their specs and of what they were made of: every leaf that is not the same in all."""
    leaves = [
        _leaves("resolved", job.resolved) | _leaves("provenance", job.provenance.model_dump())
        for job in jobs
    ]
    paths = dict.fromkeys(path for one in leaves for path in one)
    rows = [Difference(path=path, values=[one.get(path) for one in leaves]) for path in paths]
    return Comparison(
        jobs=[_compared(job) for job in jobs],
        differences=[row for row in rows if any(value != row.values[0] for value in row.values)],
    )


def _leaves(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if name not in LEFT_OUT:
            found |= _leaves(f"{path}.{name}", inner)
    return found


def _compared(job: FineTuningJob) -> ComparedJob:
    end = job.finished_at or unix(now())
    return ComparedJob(
        id=job.id,
        status=job.status,
        fine_tuned_model=job.fine_tuned_model,
        best=job.metrics.best,
        latest=job.metrics.latest,
        seconds=end - job.started_at if job.started_at is not None else None,
        resolved=job.resolved,
    )
