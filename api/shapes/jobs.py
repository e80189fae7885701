"""Fine-tuning jobs, as OpenAI's `FineTuningJob`, and what Luthier says of them besides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from api.shapes.base import Identified, Shape
from core.clock import now, unix
from models.attempts import Attempt
from models.jobs import Job
from models.resolve import BASE_LEARNING_RATE
from models.spec import Auto, JobRequest
from models.state import Desired, Status


class JobError(Shape):
    code: str
    message: str
    param: str | None


class ShownHyperparameters(Shape):
    """OpenAI's three as they were asked for; as numbers, once the data is known."""

    n_epochs: Auto | int
    batch_size: Auto | int
    learning_rate_multiplier: Auto | float


class AllHyperparameters(ShownHyperparameters):
    """And those of ours that were given."""

    model_config = ConfigDict(extra="allow")


class MethodParameters(Shape):
    hyperparameters: AllHyperparameters


class Supervised(Shape):
    type: Literal["supervised"] = "supervised"
    supervised: MethodParameters


class Dpo(Shape):
    type: Literal["dpo"] = "dpo"
    dpo: MethodParameters


class Progress(Shape):
    step: int
    total_steps: int | None
    epoch: float | None
    percent: float


class Queue(Shape):
    position: int
    """1 is the next."""
    estimated_start: int | None = None
    """None where no worker can run it, or where it hangs on a job of unknown length."""


class JobMetrics(Shape):
    latest: dict[str, Any] | None
    """By split, each with its step."""
    best: dict[str, Any] | None


class Speed(Shape):
    """Of the recent steps, evaluations and checkpoints left out."""

    steps_per_second: float
    samples_per_second: float
    tokens_per_second: float
    """Of the rows' own tokens, padding left out."""


class Provenance(Shape):
    """What the job was made of; None until it is known."""

    training_file_sha256: str | None
    validation_file_sha256: str | None
    model: str
    """The base model, however many fine-tunings lie between."""
    model_revision: str | None
    device: str | None
    """That the last attempt ran on."""
    versions: dict[str, str] | None


class JobAttempt(Shape):
    """One claim of the job by a worker, and how it ended."""

    number: int
    worker_id: str
    started_at: int
    ended_at: int | None
    outcome: str | None
    reason: str | None
    resumed_from_step: int | None


class FineTuningJob(Identified):
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: Status
    error: JobError | None
    training_file: str
    validation_file: str | None
    result_files: list[str]
    hyperparameters: ShownHyperparameters
    method: Supervised | Dpo
    seed: int
    suffix: str | None
    trained_tokens: int | None
    metadata: dict[str, str] | None
    integrations: list[dict[str, Any]]

    # Ours.
    task: str | None
    validation: str | None
    """The check of its files: GET /v1/fine_tuning/validations/{id}."""
    desired: Desired
    """What was asked for last; while it differs from the status, the job is on its way there."""
    phase: str | None
    progress: Progress | None
    queue: Queue | None
    metrics: JobMetrics
    attempts: list[JobAttempt]
    started_at: int | None
    resolved: dict[str, Any] | None
    """The spec with every default filled in, once the data is known."""
    speed: Speed | None
    peak_memory_bytes: int | None
    """Of the GPU; of a CPU, of the trainer's process with its libraries."""
    cloned_from: str | None
    provenance: Provenance


@dataclass(frozen=True)
class Beside:
    """What other tables say of a job."""

    attempts: list[Attempt]
    place: tuple[int, datetime | None] | None
    """In the queue, and the start."""
    hashes: dict[str, str]
    """SHA-256 of files."""


def fine_tuning_job(row: Job, beside: Beside) -> FineTuningJob:
    asked = JobRequest.model_validate(row.request)
    shown = _hyperparameters(row, asked)
    ours = asked.chosen_hyperparameters().model_dump(exclude_unset=True)
    return FineTuningJob(
        id=row.id,
        created_at=unix(row.created_at),
        finished_at=_unix(row.finished_at),
        estimated_finish=_estimated_finish(row),
        model=row.model,
        fine_tuned_model=row.fine_tuned_model,
        organization_id=row.project_id,
        status=Status(row.status),
        error=JobError(**row.error) if row.error else None,
        training_file=row.training_file_id,
        validation_file=row.validation_file_id,
        result_files=row.result_files,
        hyperparameters=shown,
        method=_method(asked, AllHyperparameters(**(ours | shown.model_dump()))),
        seed=row.seed,
        suffix=row.suffix,
        trained_tokens=row.trained_tokens,
        metadata=row.labels,
        integrations=[one.model_dump(exclude_none=True) for one in asked.integrations or []],
        task=row.task,
        validation=row.validation_id,
        desired=Desired(row.desired),
        phase=row.phase,
        progress=_progress(row),
        queue=_queue(beside.place),
        metrics=JobMetrics(latest=row.latest_metrics, best=row.best_metrics),
        attempts=[_attempt(number, attempt) for number, attempt in enumerate(beside.attempts, 1)],
        started_at=_unix(row.started_at),
        resolved=row.resolved,
        speed=Speed(**row.speed) if row.speed else None,
        peak_memory_bytes=row.peak_memory_bytes,
        cloned_from=row.cloned_from,
        provenance=_provenance(row, beside.hashes),
    )


def _queue(place: tuple[int, datetime | None] | None) -> Queue | None:
    return Queue(position=place[0], estimated_start=_unix(place[1])) if place else None


def _provenance(row: Job, hashes: dict[str, str]) -> Provenance:
    ran_on = row.environment or {}
    return Provenance(
        training_file_sha256=hashes.get(row.training_file_id),
        validation_file_sha256=hashes.get(row.validation_file_id or ""),
        model=row.base_model,
        model_revision=(row.resolved or {}).get("model_revision"),
        device=ran_on.get("device"),
        versions=ran_on.get("versions"),
    )


def _method(asked: JobRequest, hyperparameters: AllHyperparameters) -> Supervised | Dpo:
    parameters = MethodParameters(hyperparameters=hyperparameters)
    if asked.method is not None and asked.method.type == "dpo":
        return Dpo(dpo=parameters)
    return Supervised(supervised=parameters)


def _hyperparameters(row: Job, asked: JobRequest) -> ShownHyperparameters:
    if row.resolved is None:
        chosen = asked.chosen_hyperparameters()
        return ShownHyperparameters(
            n_epochs=chosen.n_epochs,
            batch_size=chosen.batch_size,
            learning_rate_multiplier=chosen.learning_rate_multiplier,
        )
    multiplier = row.resolved["learning_rate"] / BASE_LEARNING_RATE[asked.tuning]
    return ShownHyperparameters(
        n_epochs=row.resolved["n_epochs"],
        batch_size=row.resolved["batch_size"],
        learning_rate_multiplier=float(f"{multiplier:.12g}"),  # 2, not 2.0000000000000004
    )


def _progress(row: Job) -> Progress | None:
    if row.progress is None:
        return None
    step, total = row.progress["step"], row.progress.get("total_steps")
    return Progress(
        step=step,
        total_steps=total,
        epoch=row.progress.get("epoch"),
        percent=round(100 * step / total, 2) if total else 0.0,
    )


def _estimated_finish(row: Job) -> int | None:
    """As its worker reckons it; of a worker of an older release, by the mean speed since the
    start."""
    if row.status != Status.RUNNING:
        return None
    if row.estimated_finish is not None:
        return unix(max(row.estimated_finish, now()))
    progress = _progress(row)
    if row.started_at is None or progress is None or not progress.total_steps or not progress.step:
        return None
    elapsed = (now() - row.started_at).total_seconds()
    left = elapsed * (progress.total_steps - progress.step) / progress.step
    return unix(now()) + round(left)


def _attempt(number: int, row: Attempt) -> JobAttempt:
    return JobAttempt(
        number=number,
        worker_id=row.worker_id,
        started_at=unix(row.started_at),
        ended_at=_unix(row.ended_at),
        outcome=row.outcome,
        reason=row.reason,
        resumed_from_step=row.resumed_from_step,
    )


def _unix(moment: datetime | None) -> int | None:
    return unix(moment) if moment is not None else None
