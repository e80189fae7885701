"""Checking data files row by row, and storing what they become in their task's schema."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadData, LuthierError, NotFound
from ingest.child import prepare_limited
from ingest.infer import infer_task
from ingest.prepare import Prepared, Role
from models import files, orphans, validation_leases
from models.base import Json
from models.data_spec import ValidationRequest
from models.db import Session
from models.files import File
from models.leases import POISON_AFTER, LeaseLost
from models.validations import Validation
from worker.context import Context
from worker.lease import Lease
from worker.scratch import VALIDATION

log = logging.getLogger(__name__)

NO_TASK = ("task_ambiguous", "several_files")
"""Codes of files that may well be good: their task cannot be told from them alone. A folder of
images in an archive has no columns to tell it from."""


@dataclass(frozen=True)
class Dataset:
    """One role's data, normalised and stored."""

    prepared: Prepared
    path: Path
    key: str

    def as_json(self) -> Json:
        """A row's `training` or `validation`."""
        return {
            "rows": self.prepared.rows,
            "labels": self.prepared.labels,
            "sha256": self.prepared.sha256,
            "shape": self.prepared.report["shape"],
            "report": self.prepared.report,
        }


def validate(context: Context, validation_id: str) -> None:
    """Check the files of a validation, unless somebody does so already or has done so."""
    claimed = time.monotonic()
    with context.transaction() as session:
        validation = validation_leases.claim(
            session, context.worker_id, context.settings.lease_seconds, validation_id
        )
        if validation is None:
            return
        if validation.tries > POISON_AFTER:
            message = (
                f"Checking the files was tried {POISON_AFTER} times and never ended. "
                "Check whether the file is far larger, or its rows far longer, than meant."
            )
            error = _as_json(LuthierError(message, code="poison"))
            validation_leases.fail(session, validation.id, validation.fence, error)
            return
    scratch = context.scratch(VALIDATION) / f"{validation.id}.{validation.fence}"
    try:
        with Lease(
            context,
            validation.id,
            validation.fence,
            lambda: None,
            claimed=claimed,
            renew=validation_leases.renew,
        ) as lease:
            _validate(context, validation, lease, scratch)
    except LeaseLost:
        log.warning("validation ends: the lease of %s is lost", validation.id)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _validate(context: Context, validation: Validation, lease: Lease, scratch: Path) -> None:
    try:
        scratch.mkdir()
        task, train, valid = _check(context, validation, lease, scratch)
    except (LuthierError, OSError) as error:
        if isinstance(error, LuthierError) and error.status < 500:
            told, readable = _as_json(error), error.error_code in NO_TASK
            lease.write(
                lambda session: validation_leases.fail(
                    session, validation.id, validation.fence, told, readable=readable
                )
            )
        else:
            # The machine's fault. The claim ends here, and the reconciler rings again.
            log.warning("validation %s broke: %s", validation.id, error)
            lease.write(
                lambda session: validation_leases.drop(session, validation.id, validation.fence)
            )
        return
    lease.write(
        lambda session: validation_leases.succeed(
            session,
            validation.id,
            validation.fence,
            keep_seconds=context.settings.prepared_data_seconds,
            task=task,
            training=train.as_json(),
            validation=valid.as_json() if valid else None,
        )
    )


def _check(
    context: Context, validation: Validation, lease: Lease, scratch: Path
) -> tuple[str, Dataset, Dataset | None]:
    asked = validation.asked()
    source, name = _fetch(context, validation.training_file_id, scratch / "training")
    task = asked.task or infer_task(source, name=name)
    train = _prepare(context, validation, lease, asked, task, source, name, None)
    valid = None
    if validation.validation_file_id is not None:
        source, name = _fetch(context, validation.validation_file_id, scratch / "validation")
        valid = _prepare(context, validation, lease, asked, task, source, name, train)
    return task, train, valid


def _fetch(context: Context, file_id: str, path: Path) -> tuple[Path, str]:
    """The file's bytes on local disk, verified, and the name that messages call it by."""
    with context.transaction() as session:
        file: File | None = files.raw(session, file_id)
    if file is None:
        raise NotFound(f"The file {file_id} is gone.", param=f"{path.name}_file")
    context.store.fetch(file.storage_key, path, sha256=file.sha256)
    return path, file.filename


def _prepare(
    context: Context,
    validation: Validation,
    lease: Lease,
    asked: ValidationRequest,
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
        column_mapping=asked.column_mapping,
        out=out,
        role=role,
        labels=training.prepared.labels or None if training else None,
        name=name,
        skip_invalid=asked.skip_invalid or 0.0,
        training=training.path if training else None,
        shape=training.prepared.report["shape"] if training else None,
    )
    key = f"datasets/{validation.project_id}/{prepared.sha256}.arrow"
    lease.write(lambda session: _announce(session, validation, role, key))
    context.store.write_file(key, out)
    return Dataset(prepared, out, key)


def _announce(session: Session, validation: Validation, role: Role, key: str) -> None:
    """Refer to a data set before it is written, so that an equal one which cleaning is about to
    remove, or has just removed, is written anew after that."""
    orphans.lock_datasets(session)
    held = validation_leases.hold(session, validation.id, validation.fence)
    if role == "training":
        held.train_key = key
    else:
        held.valid_key = key


def _as_json(error: LuthierError) -> dict[str, Any]:
    details = error.details if isinstance(error, BadData) else []
    return error.as_job_error() | {"details": details}
