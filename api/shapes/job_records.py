"""What a job leaves behind while it runs: events, checkpoints, the metric series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict

from api.shapes.base import Identified, Shape
from core.clock import unix
from models.checkpoints import Checkpoint
from models.downsampled import Series
from models.events import Event
from models.metrics import Metric


class JobEvent(Identified):
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class CheckpointMetrics(Shape):
    """OpenAI's names where they apply, then every metric by its own."""

    model_config = ConfigDict(extra="allow")

    step: int
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None


class JobCheckpoint(Identified):
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics
    bytes: int
    reason: str
    """Why it was made: `interval`, `best`, `stop` or `final`."""
    best: bool


class MetricPoint(Shape):
    step: int
    split: Literal["train", "valid"]
    values: dict[str, float | None]
    created_at: float


class MetricList(Shape):
    """Whole steps, rising. For the next page, send `after_step` = the last step."""

    object: Literal["list"] = "list"
    data: list[MetricPoint]
    has_more: bool


class MetricColumns(Shape):
    """One series: the value at each step."""

    name: str
    split: Literal["train", "valid"]
    step: list[int]
    value: list[float]


class MetricSeries(Shape):
    """Every series of a job by few of its points, chosen so that it looks the same."""

    object: Literal["fine_tuning.metric_series"] = "fine_tuning.metric_series"
    data: list[MetricColumns]


def job_event(row: Event) -> JobEvent:
    return JobEvent(
        id=row.id,
        created_at=unix(row.created_at),
        level=row.level,
        message=row.message,
        type=row.type,
        data=row.data,
    )


def job_checkpoint(row: Checkpoint) -> JobCheckpoint:
    return JobCheckpoint(
        id=row.id,
        created_at=unix(row.created_at),
        fine_tuned_model_checkpoint=row.model_id,
        fine_tuning_job_id=row.job_id,
        step_number=row.step,
        metrics=CheckpointMetrics(**(row.metrics | {"step": row.step})),
        bytes=row.bytes,
        reason=row.reason,
        best=row.best,
    )


def metric_point(row: Metric, names: list[str] | None = None) -> MetricPoint:
    """With `names`, its values of these alone."""
    chosen = row.values if names is None else {n: v for n, v in row.values.items() if n in names}
    return MetricPoint(
        step=row.step,
        split=row.split,
        values=chosen,
        created_at=row.created_at.timestamp(),
    )


def metric_series(rows: Sequence[Series]) -> MetricSeries:
    return MetricSeries(
        data=[
            MetricColumns(
                name=row.name, split=row.split, step=row.steps.tolist(), value=row.values.tolist()
            )
            for row in rows
        ]
    )
