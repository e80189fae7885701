"""An estimate for the fleet as it is: on which worker a job would run, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import estimates, past_runs, workers
from models.base import Json
from models.estimates import Estimate
from models.jobs import Job
from models.queue import ALIVE_WITHIN
from models.sizes import ModelSize
from models.spec import ResolvedSpec
from models.state import Status
from models.workers import Worker

USABLE = 0.95
"""The share of a device's memory that a job may take."""
IMAGES = ("image-", "object-")
SOUNDS = ("audio-", "automatic-speech-", "text-to-speech")
WRITES_ON = ("text-generation", "preference")
"""Tasks whose models are not held to an encoder's length."""


@dataclass(frozen=True)
class Forecast:
    estimate: Estimate
    worker_id: str | None
    """The one that would take it now; None where none can."""
    fits: bool
    reasons: list[str] = field(default_factory=list)
    """Why not, and what the numbers rest on, in words."""


def forecast(
    session: Session, spec: ResolvedSpec, size: ModelSize, report: Json, requires: list[str]
) -> Forecast:
    """What the job would take, on the worker that suits it best: one that it fits on and that is
    free, before the others."""
    tokens = estimates.row_tokens(
        report, _modality(spec.task), spec.max_length, spec.task in WRITES_ON
    )
    alive = workers.alive(session, ALIVE_WITHIN)
    able = [worker for worker in alive if set(requires) <= set(worker.capabilities)]
    running = select(Job.worker_id).where(Job.status == Status.RUNNING)
    busy = set(session.scalars(running))
    reasons = [] if size.is_known else [
        "How large the model is cannot be told before it is downloaded; "
        f"{size.parameters:,} weights were assumed."
    ]  # fmt: skip
    if not able:
        kind = "cuda" if "cuda" in requires else "cpu"
        past = _past(session, spec, None)
        reasons.append(
            f"No worker that is alive has {', '.join(requires)}. The job would wait for one."
            if requires
            else "No worker is alive. The job would wait for one."
        )
        estimate = estimates.estimate(spec, size, tokens, kind, past)
        return Forecast(estimate, None, False, [*reasons, _basis(estimate)])
    tried = [(worker, _on(session, worker, spec, size, tokens)) for worker in able]
    worker, estimate = min(
        tried,
        key=lambda one: (not _fits(*one), one[0].id in busy, one[1].seconds, one[0].id),
    )
    fits = _fits(worker, estimate)
    if not fits:
        reasons.append(
            f"It needs about {estimate.peak_memory_bytes / 2**30:.1f} GiB; the largest worker that "
            f"could take it has {worker.details['memory_bytes'] / 2**30:.1f} GiB. Choose a smaller "
            "`micro_batch_size`, `micro_batch_tokens` or `max_length`, `activation_checkpointing`, "
            "or `tuning` 'lora'."
        )
    elif worker.id in busy:
        reasons.append("Every worker that could take it is busy: it would wait for one.")
    return Forecast(estimate, worker.id, fits, [*reasons, _basis(estimate)])


def _on(
    session: Session, worker: Worker, spec: ResolvedSpec, size: ModelSize, tokens: float
) -> Estimate:
    past = _past(session, spec, worker.details.get("device_name"))
    return estimates.estimate(spec, size, tokens, worker.details["device"], past)


def _past(session: Session, spec: ResolvedSpec, device: str | None) -> list[past_runs.PastRun]:
    return past_runs.alike(
        session, task=spec.task, model=spec.model, tuning=spec.tuning, device=device
    )


def _fits(worker: Worker, estimate: Estimate) -> bool:
    memory = worker.details.get("memory_bytes")  # Unknown of workers of an older release.
    return memory is None or estimate.peak_memory_bytes <= USABLE * memory


def _basis(estimate: Estimate) -> str:
    if not estimate.calibrated_by:
        return "No job of this kind has run here yet: time and memory are rough."
    runs = f"{estimate.calibrated_by} past run{'s' if estimate.calibrated_by > 1 else ''}"
    if estimate.error is None:
        return f"Calibrated by {runs} of this kind."
    off = f"{estimate.error:.0%} off (median)"
    return f"Calibrated by {runs} of this kind, whose estimates were {off}."


def _modality(task: str) -> str:
    if task.startswith(IMAGES):
        return "image"
    return "audio" if task.startswith(SOUNDS) else "text"
