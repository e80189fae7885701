"""Checking data files row by row, and storing what they become in their task's schema."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import ids
from core.errors import BadData, LuthierError, NotFound
from core.settings import Settings
from core.storage import Written
from ingest.child import prepare_limited
from ingest.clean import Choices
from ingest.prepare import Prepared, Role
from models import catalogue, files, orphans, validation_leases, validations
from models.base import Json
from models.data_spec import Cleaning
from models.db import Session
from models.files import RESULTS_PURPOSE, File
from models.leases import POISON_AFTER, LeaseLost
from models.validations import Validation
from worker import base_models, sources
from worker.context import Context
from worker.lease import Lease
from worker.scratch import VALIDATION
from worker.waiting import ShuttingDown, holding, while_wanted

log = logging.getLogger(__name__)

NO_TASK = "task_ambiguous"
"""The code of a file that may well be good: its task cannot be told from it alone."""


@dataclass(frozen=True)
class Dataset:
    """One role's data, normalised and stored."""

    path: Path
    key: str
    rows: int
    labels: list[str]
    sha256: str
    report: dict[str, Any]
    skipped: File | None = None
    """The rows that were left out, stored as a file of their own; its row is yet to be written."""

    @property
    def task(self) -> str:
        return str(self.report["task"])

    @property
    def shape(self) -> str:
        return str(self.report["shape"])

    def as_json(self) -> Json:
        """A row's `training` or `validation`."""
        return {
            "rows": self.rows,
            "labels": self.labels,
            "sha256": self.sha256,
            "shape": self.shape,
            "report": self.report,
            "skipped_file": self.skipped.id if self.skipped else None,
        }


@dataclass(frozen=True)
class Claim:
    """What the parts of one check share."""

    context: Context
    validation: Validation
    lease: Lease
    wanted: Callable[[], None]
    """Raises LeaseLost or ShuttingDown."""


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
        if validation.failures >= context.settings.max_failures:
            message = (
                f"Checking the files broke {validation.failures} times: the storage, or the place "
                "that the data comes from, was away each time. Ask the administrator, then try "
                "again."
            )
            error = _as_json(LuthierError(message, code="unavailable"))
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
            _validate(Claim(context, validation, lease, holding(context, lease)), scratch)
    except LeaseLost:
        log.warning("validation ends: the lease of %s is lost", validation.id)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _validate(claim: Claim, scratch: Path) -> None:
    validation, lease = claim.validation, claim.lease
    try:
        scratch.mkdir()
        train, valid = while_wanted(lambda: _check(claim, scratch), claim.wanted)
    except ShuttingDown:
        lease.write(
            lambda session: validation_leases.give_back(session, validation.id, validation.fence)
        )
        claim.context.doorbell.validate(validation.id)  # For those that stay.
        return
    except (LuthierError, OSError) as error:
        if isinstance(error, LuthierError) and error.status < 500:
            told, readable = _as_json(error), error.error_code == NO_TASK
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
    settings = claim.context.settings
    lease.write(lambda session: _succeed(session, validation, settings, train, valid))


def _succeed(
    session: Session,
    validation: Validation,
    settings: Settings,
    train: Dataset,
    valid: Dataset | None,
) -> None:
    validation_leases.hold(session, validation.id, validation.fence)
    for dataset in (train, valid):
        if dataset is not None and dataset.skipped is not None:
            files.add(session, dataset.skipped)
    validation_leases.succeed(
        session,
        validation.id,
        validation.fence,
        keep_seconds=settings.prepared_data_seconds,
        task=train.task,
        training=train.as_json(),
        validation=valid.as_json() if valid else None,
    )


def _check(claim: Claim, scratch: Path) -> tuple[Dataset, Dataset | None]:
    validation = claim.validation
    source, name = _fetch(claim, validation.training_file_id, scratch / "training")
    train, valid = _training(claim, source, name)
    if validation.validation_file_id is not None:
        source, name = _fetch(claim, validation.validation_file_id, scratch / "validation")
        valid = _validation(claim, source, name, train)
    return train, valid


def _training(claim: Claim, source: Path, name: str) -> tuple[Dataset, Dataset | None]:
    """Check and store the training file; and the rows split off of it, if any are to be."""
    validation, asked = claim.validation, claim.validation.asked()
    out, valid_out = source.with_suffix(".arrow"), source.with_name("split_off.arrow")
    prepared = prepare_limited(
        source,
        validation.asked_task,
        column_mapping=asked.column_mapping,
        out=out,
        role="training",
        name=name,
        skip_invalid=asked.skip_invalid or 0.0,
        skipped_out=_skipped_path(out),
        cleaning=_choices(asked.cleaning),
        valid_out=valid_out,
        model=_model_folder(claim, asked.model, source.parent),
        check=claim.wanted,
    )
    train = _stored(claim, "training", prepared, out)
    if prepared.split_off is None:
        return train, None
    split = prepared.split_off
    key = _store(claim, "validation", split.sha256, valid_out)
    report = {
        "file": name,
        "task": train.task,
        "shape": train.shape,
        "rows": split.rows,
        "split_off": "of the training file",
    }
    valid = Dataset(valid_out, key, split.rows, train.labels, split.sha256, report)
    return train, valid


def _validation(claim: Claim, source: Path, name: str, train: Dataset) -> Dataset:
    """Check and store the validation file, which must go with the training data."""
    asked = claim.validation.asked()
    out = source.with_suffix(".arrow")
    prepared = prepare_limited(
        source,
        train.task,
        column_mapping=asked.column_mapping,
        out=out,
        role="validation",
        labels=train.labels or None,
        name=name,
        skip_invalid=asked.skip_invalid or 0.0,
        skipped_out=_skipped_path(out),
        training=train.path,
        shape=train.shape,
        cleaning=_choices(asked.cleaning and asked.cleaning.of_texts()),
        model=_model_folder(claim, asked.model, source.parent),
        check=claim.wanted,
    )
    return _stored(claim, "validation", prepared, out)


def _model_folder(claim: Claim, name: str | None, scratch: Path) -> Path | None:
    """The model's folder; its weights are not among what is fetched."""
    if name is None:
        return None
    context = claim.context
    model = catalogue.find(context.settings, name)
    return base_models.obtain(context, model, catalogue.TEXT_FILES, scratch, claim.wanted)


def _choices(cleaning: Cleaning | None) -> Choices | None:
    return Choices(**cleaning.model_dump()) if cleaning is not None else None


def _fetch(claim: Claim, file_id: str, path: Path) -> tuple[Path, str]:
    """The file's bytes on local disk, verified, and the name that messages call it by."""
    context, param = claim.context, f"{path.name}_file"
    with context.transaction() as session:
        file: File | None = files.raw(session, file_id)
    if file is None:
        raise NotFound(f"The file {file_id} is gone.", param=param)
    if file.source is not None and not file.sha256:
        sources.bring(context, file.source, path, param, claim.wanted)
        # A key of this claim's own: one that lost its lease meanwhile must not write over the bytes
        # that another has brought.
        key = files.storage_key(file.project_id, ids.file())
        written = context.store.write_file(key, path)
        spare = claim.lease.write(
            lambda session: _note_brought(session, claim.validation, file_id, key, written)
        )
        if spare is not None:
            context.store.delete(spare)
    else:
        context.store.fetch(file.storage_key, path, sha256=file.sha256, check=claim.wanted)
    return path, file.filename


def _note_brought(
    session: Session, validation: Validation, file_id: str, key: str, written: Written
) -> str | None:
    held = validation_leases.hold(session, validation.id, validation.fence)
    spare = files.brought(session, file_id, key, written.bytes, written.sha256)
    validations.know_content(session, held)
    return spare


def _stored(claim: Claim, role: Role, prepared: Prepared, path: Path) -> Dataset:
    key = _store(claim, role, prepared.sha256, path)
    skipped = None
    if prepared.report["skipped"]["rows"]:
        skipped = _skipped_file(claim, role, _skipped_path(path))
    return Dataset(
        path, key, prepared.rows, prepared.labels, prepared.sha256, prepared.report, skipped
    )


def _skipped_path(out: Path) -> Path:
    return out.with_suffix(".skipped.jsonl")


def _store(claim: Claim, role: Role, sha256: str, path: Path) -> str:
    key = f"datasets/{claim.validation.project_id}/{sha256}.arrow"
    claim.lease.write(lambda session: _announce(session, claim.validation, role, key))
    claim.context.store.write_file(key, path)
    return key


def _skipped_file(claim: Claim, role: Role, path: Path) -> File:
    """The rows left out by `skip_invalid`, a JSON object a line, for the user to mend."""
    validation, file_id = claim.validation, ids.file()
    key = files.storage_key(validation.project_id, file_id)
    written = claim.context.store.write_file(key, path)
    return File(
        id=file_id,
        project_id=validation.project_id,
        filename=f"{validation.id}-{role}-skipped.jsonl",
        purpose=RESULTS_PURPOSE,
        bytes=written.bytes,
        sha256=written.sha256,
        storage_key=key,
    )


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
