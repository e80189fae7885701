"""What the service answers beyond OpenAI's objects.

Fields that a newer service adds are kept too, as attributes and in `model_extra`.
"""

from __future__ import annotations

from typing import Any, Literal

from openai import BaseModel
from openai.types.fine_tuning import FineTuningJob

Split = Literal["train", "valid"]
StopMode = Literal["save", "now"]

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
    """A job's metrics: the newest by split (`train`, `valid`), and those of the best checkpoint."""

    latest: dict[str, Any] | None = None
    best: dict[str, Any] | None = None


class Attempt(BaseModel):
    """One claim of a job by a worker, and how it ended."""

    number: int
    worker_id: str
    started_at: int
    ended_at: int | None = None
    outcome: str | None = None
    reason: str | None = None
    resumed_from_step: int | None = None


class Speed(BaseModel):
    """Of the recent steps, evaluations and checkpoints left out."""

    steps_per_second: float
    samples_per_second: float
    tokens_per_second: float


class Provenance(BaseModel):
    """What a job was made of; None until it is known."""

    training_file_sha256: str | None = None
    validation_file_sha256: str | None = None
    model: str
    model_revision: str | None = None
    device: str | None = None
    versions: dict[str, str] | None = None


class Job(FineTuningJob):
    """OpenAI's fine-tuning job and what Luthier says of it besides."""

    status: Literal[  # type: ignore[assignment]  # `paused` is missing from OpenAI's type
        "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
    ]
    suffix: str | None = None
    started_at: int | None = None
    task: str | None = None
    validation: str | None = None
    """The check of its files, for `client.validations`."""
    desired: str | None = None
    """What was asked for last: run, pause or cancel."""
    phase: str | None = None
    """What the trainer is doing: loading_model, training, evaluating, saving, …"""
    progress: Progress | None = None
    queue: Queue | None = None
    metrics: Metrics | None = None
    attempts: list[Attempt] | None = None
    resolved: dict[str, Any] | None = None
    """The spec with every default filled in."""
    speed: Speed | None = None
    peak_memory_bytes: int | None = None
    cloned_from: str | None = None
    provenance: Provenance | None = None


class Estimate(BaseModel):
    """What a job would take. Nine runs of ten take between `seconds_low` and `seconds_high`."""

    task: str
    resolved: dict[str, Any]
    rows: int
    steps: int
    trained_tokens: int
    peak_memory_bytes: int
    seconds: float
    seconds_low: float
    seconds_high: float
    fits: bool
    worker: str | None = None
    reasons: list[str]
    calibrated_by: int
    """Past runs that set the numbers right."""
    error: float | None = None
    """How far those runs' own estimates were off, as a share of the truth."""


class ComparedJob(BaseModel):
    id: str
    status: str
    fine_tuned_model: str | None = None
    best: dict[str, Any] | None = None
    latest: dict[str, Any] | None = None
    seconds: int | None = None
    resolved: dict[str, Any] | None = None


class Difference(BaseModel):
    path: str
    values: list[Any]
    """One a job, in their order."""


class Comparison(BaseModel):
    """Jobs side by side."""

    jobs: list[ComparedJob]
    differences: list[Difference]


class PredictionError(BaseModel):
    code: str
    message: str


class Prediction(BaseModel):
    """A fine-tuned model tried on one input."""

    id: str
    model: str
    status: Literal["queued", "running", "succeeded", "failed"]
    output: Any = None
    """In the form of the task's Hugging Face pipeline."""
    error: PredictionError | None = None
    created_at: int
    seconds: float | None = None


class CheckedFile(BaseModel):
    """What a validation found in one file."""

    rows: int
    labels: list[str]
    shape: str
    report: dict[str, Any]
    skipped_file: str | None = None
    """The bad rows that were left out, as a file to download."""


class ValidationProblem(BaseModel):
    code: str
    message: str
    param: str | None = None
    details: list[dict[str, Any]]
    """The problems with their places."""


class Validation(BaseModel):
    """Data files checked row by row."""

    id: str
    created_at: int
    started_at: int | None = None
    finished_at: int | None = None
    status: Literal["queued", "running", "succeeded", "failed"]
    automatic: bool = False
    """Begun by an upload."""
    training_file: str
    validation_file: str | None = None
    task: str | None = None
    model: str | None = None
    training: CheckedFile | None = None
    validation: CheckedFile | None = None
    error: ValidationProblem | None = None


class MetricPoint(BaseModel):
    """The metrics of one step on one split; None stands for a value that was not finite."""

    step: int
    split: str
    values: dict[str, float | None]
    created_at: float


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
    """A task, by the name of its Hugging Face pipeline, and its data."""

    id: str
    title: str
    description: str
    modality: Literal["text", "image", "audio"]
    trainable: bool
    """Whether jobs can be made of it today; of the others the data format is settled."""
    shapes: list[dict[str, Any]]
    """The ways of writing its rows, each with its columns; the first is the primary one."""
    formats: list[str]
    example: list[dict[str, Any]]
    example_text: dict[str, str]
    metrics: list[str]
    hyperparameters: dict[str, Any]
    """A JSON schema, with defaults."""
