"""What a job would take, before it is submitted."""

from __future__ import annotations

from typing import Any, Literal

from api.shapes.base import Shape
from models.forecast import Forecast
from models.spec import ResolvedSpec


class FineTuningEstimate(Shape):
    object: Literal["fine_tuning.estimate"] = "fine_tuning.estimate"
    task: str
    resolved: dict[str, Any]
    """The spec with every default filled in; the seed is 0 where none was given."""
    rows: int
    steps: int
    trained_tokens: int
    peak_memory_bytes: int
    """Of the GPU; of a CPU, of the trainer's process with its libraries."""
    seconds: float
    """From the claim by a worker to the end."""
    seconds_low: float
    seconds_high: float
    """Nine runs of ten lie between them, if they differ from each other as those before did."""
    fits: bool
    worker: str | None
    """That it would run on, as the fleet is now."""
    reasons: list[str]
    """What the numbers rest on, and why it does not fit or has to wait."""
    calibrated_by: int
    """Past runs that set these numbers right."""
    error: float | None
    """How far those runs' own estimates were off in the median, as a share of the truth."""


def fine_tuning_estimate(spec: ResolvedSpec, found: Forecast) -> FineTuningEstimate:
    estimate = found.estimate
    return FineTuningEstimate(
        task=spec.task,
        resolved=spec.model_dump(),
        rows=spec.train_rows,
        steps=spec.total_steps,
        trained_tokens=estimate.trained_tokens,
        peak_memory_bytes=estimate.peak_memory_bytes,
        seconds=round(estimate.seconds, 1),
        seconds_low=round(estimate.seconds_low, 1),
        seconds_high=round(estimate.seconds_high, 1),
        fits=found.fits,
        worker=found.worker_id,
        reasons=found.reasons,
        calibrated_by=estimate.calibrated_by,
        error=estimate.error,
    )
