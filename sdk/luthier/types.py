"""What the service answers beyond OpenAI's objects.

Fields that a newer service adds are kept too, as attributes and in `model_extra`.
"""

from __future__ import annotations

from typing import Any, Literal

from openai import BaseModel
from openai.types.fine_tuning import FineTuningJob

Split = Literal["train", "valid"]

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
"""The states that a job never leaves."""


class Progress(BaseModel):
    """How far a job is, in optimizer steps. `percent` goes to 100."""

    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    percent: float | None = None


class Queue(BaseModel):
    """A waiting job's place, 1 being the next."""

    position: int | None = None
    estimated_start: int | None = None


class Metrics(BaseModel):
    """A job's metrics by split (`train`, `valid`) and name: the newest, and those of the best
    checkpoint."""

    latest: dict[str, dict[str, float]] | None = None
    best: dict[str, Any] | None = None


class Job(FineTuningJob):
    """OpenAI's fine-tuning job and what Luthier says of it besides."""

    status: Literal[  # type: ignore[assignment]  # `paused` is missing from OpenAI's type
        "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
    ]
    task: str | None = None
    phase: str | None = None
    """What the trainer is doing: loading_model, training, evaluating, saving, …"""
    progress: Progress | None = None
    queue: Queue | None = None
    metrics: Metrics | None = None
    attempts: Any = None
    resolved: dict[str, Any] | None = None
    """The spec with every default filled in."""


class MetricPoint(BaseModel):
    """The metrics of one step on one split."""

    step: int
    split: str
    values: dict[str, float]
    created_at: float | None = None


class MetricPage(BaseModel):
    data: list[MetricPoint]
    has_more: bool = False


class ModelFile(BaseModel):
    """One file of a fine-tuned model. `path` is relative, with `/` between its parts."""

    path: str
    bytes: int
    sha256: str
    etag: str


class Task(BaseModel):
    """A task that the service can train, by the name of its Hugging Face pipeline."""

    id: str
