"""The end of `validating_files`: a job whose data has been checked gets its spec resolved and is
queued, or ends by what is wrong, before a GPU is waited for."""

from __future__ import annotations

import json
import logging
import shutil
import time
from datetime import UTC
from pathlib import Path
from typing import Any, cast

from core.errors import BadData, InvalidRequest, LuthierError
from models import (
    catalogue,
    events,
    fit,
    leases,
    orphans,
    sizes,
    transitions,
    validations,
)
from models.catalogue import BaseModel
from models.db import Session
from models.forecast import forecast
from models.jobs import Job
from models.leases import POISON_AFTER, LeaseLost
from models.origins import Origin
from models.resolve import DataFacts, resolve
from models.sizes import ModelSize
from models.spec import JobRequest, ResolvedSpec
from models.state import Status
from models.tasks import TRAINABLE
from models.validations import Validation
from worker.context import Context
from worker.lease import Lease
from worker.scratch import VALIDATION
from worker.waiting import ShuttingDown, holding, while_wanted

log = logging.getLogger(__name__)

SHOWN_PROBLEMS = 20
"""Problems of a bad file that are listed in the job's events; the rest are with the validation."""


def admit_waiting(context: Context, validation_id: str) -> None:
    """Take up all jobs that wait for this validation, if it has ended."""
    with context.transaction() as session:
        waiting = validations.waiting_jobs(session, validation_id)
    for job_id in waiting:
        if context.stopping.is_set():
            return  # They are rung for again.
        admit(context, job_id)


def admit(context: Context, job_id: str) -> None:
    """Queue one job or end it. Nothing happens where somebody else does so."""
    settings = context.settings
    claimed, began_ns = time.monotonic(), time.time_ns()
    with context.transaction() as session:
        job = leases.claim_admission(session, context.worker_id, settings.lease_seconds, job_id)
        if job is None:
            return
        if job.failures_without_progress > POISON_AFTER:
            message = (
                f"Queueing the job was tried {POISON_AFTER} times and never ended. "
                "Ask the administrator for the control workers' logs."
            )
            _fail(session, job, LuthierError(message, code="poison"))
            return
        if job.failures >= settings.max_failures:
            message = (
                f"Queueing the job broke {job.failures} times: the storage, or the hub that has "
                "its model, was away each time. Ask the administrator, then submit it anew."
            )
            _fail(session, job, LuthierError(message, code="unavailable"))
            return
        assert job.validation_id is not None
        validation = validations.get(session, job.project_id, job.validation_id)
    scratch = context.scratch(VALIDATION) / f"{job.id}.{job.fence}"
    span = context.tracing.span(
        "admit", parent=job.traceparent, began_ns=began_ns, job_id=job.id, fence=job.fence
    )
    try:
        with span, Lease(context, job.id, job.fence, lambda: None, claimed=claimed) as lease:
            _admit(context, job, validation, lease, scratch)
    except LeaseLost:
        log.warning("admission ends: its lease is lost", extra={"job_id": job.id})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _admit(context: Context, job: Job, validation: Validation, lease: Lease, scratch: Path) -> None:
    anew: str | None = None
    try:
        scratch.mkdir()
        if not validations.answers(job, validation):
            anew = lease.write(lambda session: _validate_anew(session, job))
        elif validation.error is not None:
            raise _raised(validation.error)
        else:
            spec, base = while_wanted(
                lambda: _resolve(context, job, validation, scratch), holding(context, lease)
            )
            size = sizes.of(base)
            anew = lease.write(lambda session: _queue(session, job, validation, spec, size))
    except ShuttingDown:
        lease.write(lambda session: leases.give_back_admission(session, job.id, job.fence))
        context.doorbell.validate(validation.id)  # For those that stay.
        return
    except (LuthierError, OSError) as error:
        if isinstance(error, LuthierError) and error.status < 500:
            fault = error
            lease.write(lambda session: _fail(session, job, fault))
            _trace_wait(context, job, validation)
        else:
            # The machine's fault. The claim ends here, and the reconciler rings again.
            log.warning("admission broke: %s", error, extra={"job_id": job.id})
            lease.write(lambda session: leases.drop_admission(session, job.id, job.fence))
        return
    _trace_wait(context, job, validation)
    if anew is not None:
        context.doorbell.validate(anew)
    else:
        context.doorbell.train(job.requires)


def _trace_wait(context: Context, job: Job, validation: Validation) -> None:
    """Show the check of the files in the job's trace, as far as the job waited for it: it may have
    begun at their upload, be shared with other jobs, or have ended long before."""
    began, ended = validation.started_at, validation.finished_at
    if job.traceparent is None or began is None or ended is None or ended <= job.created_at:
        return
    context.tracing.past(
        "validate",
        parent=job.traceparent,
        began=max(began, job.created_at),
        ended=ended,
        job_id=job.id,
        validation_id=validation.id,
    )


def _validate_anew(session: Session, job: Job) -> str:
    """Let the job wait for a validation of its own; that one's id."""
    held = leases.hold(session, job.id, job.fence)
    own = validations.create_for_job(session, held)
    held.validation_id = own.id
    held.fence += 1  # or a late heartbeat would take the lease anew
    held.worker_id = held.lease_expires_at = None
    return own.id


def _resolve(
    context: Context, job: Job, validation: Validation, scratch: Path
) -> tuple[ResolvedSpec, BaseModel]:
    task, train, valid = validation.task, validation.training, validation.validation
    assert task is not None
    assert train is not None
    if task not in TRAINABLE:
        raise InvalidRequest(
            f"This data looks like {task}, which cannot be trained yet. "
            f"Tasks that can: {', '.join(TRAINABLE)}. Give `task` if another is meant.",
            param="task",
            code="task_not_supported",
        )
    origin = cast(Origin | None, job.origin)
    if origin is not None:
        _check_labels(context, origin, train["labels"], scratch / "config.json")
    request = JobRequest.model_validate(job.request)
    base = catalogue.find(context.settings, job.base_model)
    if origin is None:
        fit.check(base, task, request.tuning)
    facts = DataFacts.of(task, train, valid)
    spec = resolve(
        request,
        facts,
        model=base.name,
        model_revision=base.revision,
        from_checkpoint=origin["name"] if origin else None,
        seed=job.seed,
        max_job_tokens=context.settings.max_job_tokens,
        day=job.created_at.astimezone(UTC).date().isoformat(),
    )
    return spec, base


def _check_labels(context: Context, origin: Origin, labels: list[str], path: Path) -> None:
    """What a model was trained to tell apart, it goes on to tell apart: other labels would need
    another head, and the old one's meanings would be lost without a word."""
    sha256 = next(file["sha256"] for file in origin["files"] if file["path"] == path.name)
    context.store.fetch(f"{origin['prefix']}/{path.name}", path, sha256=sha256)
    known = sorted(json.loads(path.read_bytes()).get("label2id") or {})
    if labels and labels != known:
        differing = sorted(set(labels) ^ set(known))
        raise InvalidRequest(
            f"{origin['name']} was trained for the labels {', '.join(known)}; the training file "
            f"differs from that in {', '.join(differing)}. Start from the base model to train for "
            "other labels.",
            param="training_file",
            code="labels_mismatch",
        )


def _queue(
    session: Session, job: Job, validation: Validation, spec: ResolvedSpec, size: ModelSize
) -> str | None:
    """Queue the job on what the validation prepared; or, where that is kept no longer, the id of
    the validation that prepares it anew."""
    orphans.lock_datasets(session)
    if not validations.has_data(session, validation.id):
        return _validate_anew(session, job)
    assert validation.training is not None
    report = validation.training["report"]
    expected = forecast(session, spec, size, report, job.requires)
    moved = transitions.apply(
        session,
        job.id,
        Status.QUEUED,
        fence=job.fence,
        message="Files validated, moving job to queued state",
        data={
            "train_rows": spec.train_rows,
            "valid_rows": spec.valid_rows,
            "validation": validation.id,
            "report": report,
        },
        task=spec.task,
        resolved=spec.model_dump(),
        predicted=expected.estimate.as_json(),
        train_key=validation.train_key,
        valid_key=validation.valid_key,
        result_files=_skipped_files(validation),
        failures=0,  # What broke until now was not the training, whose count this becomes.
        failures_without_progress=0,
    )
    if moved is None:
        raise LeaseLost(f"{job.id} is not ours to queue any more.")
    # A worker that has just started is not known yet, and may take whatever needs nothing special.
    if not expected.fits and (job.requires or expected.worker_id is not None):
        events.add(session, job.id, " ".join(expected.reasons), level="warn")
    return None


def _skipped_files(validation: Validation) -> list[str]:
    """What `skip_invalid` left out is among a job's results from the start."""
    checked = (validation.training, validation.validation)
    return [data["skipped_file"] for data in checked if data and data.get("skipped_file")]


def _raised(error: dict[str, Any]) -> BadData:
    return BadData(
        error["message"], code=error["code"], param=error["param"], details=error["details"]
    )


def _fail(session: Session, job: Job, error: LuthierError) -> None:
    """End the job by its own fault, with the problems and their places in events."""
    leases.hold(session, job.id, job.fence)
    for detail in error.details[:SHOWN_PROBLEMS]:
        events.add(session, job.id, _in_words(detail), level="error", data=detail)
    moved = transitions.apply(
        session,
        job.id,
        Status.FAILED,
        fence=job.fence,
        message=str(error),
        data={"code": error.error_code, "details": error.details},
        error=error.as_job_error(),
    )
    if moved is None:
        raise LeaseLost(f"{job.id} is not ours to end any more.")


def _in_words(detail: dict[str, object]) -> str:
    place = next(
        (f" {unit} {detail[unit]}" for unit in ("line", "row") if detail.get(unit) is not None), ""
    )
    return f"{detail['file']}{place}: {detail['message']}. {detail.get('hint') or ''}".strip()
