"""`validating_files`: every row is checked, and the spec resolved, before a GPU is waited for."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from core.errors import BadData, InvalidRequest, LuthierError, NotFound
from ingest.child import prepare_limited
from ingest.infer import infer_task
from ingest.prepare import Prepared, Role
from models import catalogue, events, files, leases, orphans, transitions
from models.db import Session
from models.files import File
from models.jobs import Job
from models.leases import POISON_AFTER, LeaseLost
from models.origins import Origin
from models.resolve import DataFacts, resolve
from models.spec import JobRequest, ResolvedSpec
from models.state import Status
from models.tasks import TRAINABLE
from worker.context import Context
from worker.lease import Lease
from worker.scratch import VALIDATION

log = logging.getLogger(__name__)

SHOWN_PROBLEMS = 20
"""Problems of a bad file that are listed in the job's event; the rest are counted."""


@dataclass(frozen=True)
class Dataset:
    """One role's data, normalised and stored."""

    prepared: Prepared
    path: Path
    key: str


def validate(context: Context, job_id: str | None) -> bool:
    """Validate one waiting job, the one named or the oldest. False when none waits."""
    settings = context.settings
    claimed = time.monotonic()
    with context.transaction() as session:
        job = leases.claim_validation(session, context.worker_id, settings.lease_seconds, job_id)
        if job is None:
            return False
        if job.failures_without_progress > POISON_AFTER:
            message = (
                f"Validating the files was tried {POISON_AFTER} times and never ended. "
                "Check whether the file is far larger, or its rows far longer, than meant."
            )
            _fail(session, job, LuthierError(message, code="poison"))
            return True
    scratch = context.scratch(VALIDATION) / f"{job.id}.{job.fence}"
    try:
        with Lease(context, job.id, job.fence, lambda: None, claimed=claimed) as lease:
            _validate(context, job, lease, scratch)
    except LeaseLost:
        log.warning("validation ends: its lease is lost", extra={"job_id": job.id})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _validate(context: Context, job: Job, lease: Lease, scratch: Path) -> None:
    try:
        scratch.mkdir()
        spec, train, valid = _check(context, job, lease, scratch)
    except (LuthierError, OSError) as error:
        if isinstance(error, LuthierError) and error.status < 500:
            fault = error
            lease.write(lambda session: _fail(session, job, fault))
        else:
            # The machine's fault. The claim ends here, and the reconciler rings again.
            log.warning("validation broke: %s", error, extra={"job_id": job.id})
            lease.write(lambda session: leases.drop_validation(session, job.id, job.fence))
        return

    def queue(session: Session) -> None:
        moved = transitions.apply(
            session,
            job.id,
            Status.QUEUED,
            fence=job.fence,
            message="Files validated, moving job to queued state",
            data={
                "train_rows": spec.train_rows,
                "valid_rows": spec.valid_rows,
                "report": train.prepared.report,
            },
            task=spec.task,
            resolved=spec.model_dump(),
            train_key=train.key,
            valid_key=valid.key if valid else None,
            failures_without_progress=0,
        )
        if moved is None:
            raise LeaseLost(f"{job.id} is not this validator's any more.")

    lease.write(queue)
    context.doorbell.train(job.requires)


def _check(
    context: Context, job: Job, lease: Lease, scratch: Path
) -> tuple[ResolvedSpec, Dataset, Dataset | None]:
    request = JobRequest.model_validate(job.request)
    origin = cast(Origin | None, job.origin)
    source, name = _fetch(context, job.training_file_id, scratch / "training", "training_file")
    task = request.task or (origin["task"] if origin else infer_task(source, name=name))
    if task not in TRAINABLE:
        raise InvalidRequest(
            f"This data looks like {task}, which cannot be trained yet. "
            f"Tasks that can: {', '.join(TRAINABLE)}. Give `task` if another is meant.",
            param="task",
            code="task_not_supported",
        )
    train = _prepare(context, job, lease, request, task, source, name, None)
    if origin is not None:
        _check_labels(context, origin, train.prepared.labels, scratch / "config.json")
    valid = None
    if job.validation_file_id is not None:
        source, name = _fetch(
            context, job.validation_file_id, scratch / "validation", "validation_file"
        )
        valid = _prepare(context, job, lease, request, task, source, name, train)
    base = catalogue.find(context.settings, job.base_model)
    facts = DataFacts(
        task=task,
        train_rows=train.prepared.rows,
        valid_rows=valid.prepared.rows if valid else 0,
        labels=train.prepared.labels,
        train_sha256=train.prepared.sha256,
        valid_sha256=valid.prepared.sha256 if valid else None,
        shape=train.prepared.report["shape"],
    )
    spec = resolve(
        request,
        facts,
        model=base.name,
        model_revision=base.revision,
        from_checkpoint=origin["name"] if origin else None,
        seed=job.seed,
        max_job_tokens=context.settings.max_job_tokens,
    )
    return spec, train, valid


def _fetch(context: Context, file_id: str, path: Path, param: str) -> tuple[Path, str]:
    """The file's bytes on local disk, verified, and the name that messages call it by."""
    with context.transaction() as session:
        file: File | None = files.raw(session, file_id)
    if file is None:
        raise NotFound(f"The file {file_id} is gone.", param=param)
    context.store.fetch(file.storage_key, path, sha256=file.sha256)
    return path, file.filename


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


def _prepare(
    context: Context,
    job: Job,
    lease: Lease,
    request: JobRequest,
    task: str,
    source: Path,
    name: str,
    training: Dataset | None,
) -> Dataset:
    """Check and store one file; `training` is given for the validation data that goes with it."""
    role: Role = "training" if training is None else "validation"
    out = source.with_suffix(".arrow")
    prepared = prepare_limited(
        source,
        task,
        column_mapping=request.column_mapping,
        out=out,
        role=role,
        labels=training.prepared.labels or None if training else None,
        name=name,
        training=training.path if training else None,
        shape=training.prepared.report["shape"] if training else None,
    )
    key = f"datasets/{job.project_id}/{prepared.sha256}.arrow"
    lease.write(lambda session: _announce(session, job, role, key))
    context.store.write_file(key, out)
    return Dataset(prepared, out, key)


def _announce(session: Session, job: Job, role: Role, key: str) -> None:
    """Refer to a data set before it is written, so that an equal one which cleaning is about to
    remove, or has just removed, is written anew after that."""
    orphans.lock_datasets(session)
    held = leases.hold(session, job.id, job.fence)
    if role == "training":
        held.train_key = key
    else:
        held.valid_key = key


def _fail(session: Session, job: Job, error: LuthierError) -> None:
    """End the job by its own fault, with the problems and their places in events."""
    leases.hold(session, job.id, job.fence)
    if isinstance(error, BadData) and error.details:
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
        raise LeaseLost(f"{job.id} is not this validator's any more.")


def _in_words(detail: dict[str, object]) -> str:
    place = next(
        (f" {unit} {detail[unit]}" for unit in ("line", "row") if detail.get(unit) is not None), ""
    )
    return f"{detail['file']}{place}: {detail['message']}. {detail.get('hint') or ''}".strip()
