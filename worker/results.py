"""The result files of a job: what is left to look at when it has ended, however it did."""

from __future__ import annotations

import logging
from pathlib import Path

from core import ids
from core.storage import ObjectCorrupt, ObjectMissing, StorageUnavailable
from models import files
from models.db import Session
from models.files import RESULTS_PURPOSE, File
from models.jobs import Job
from worker import series
from worker.publisher import PATIENCE_SECONDS, Publisher, describe

SERIES = "series.jsonl"

log = logging.getLogger(__name__)


def make(
    job: Job, publisher: Publisher, folder: Path, patience: float = PATIENCE_SECONDS
) -> list[File]:
    """Store the result files; their rows are yet to be written, with `attach`. The metric series
    as CSV comes first, as with OpenAI. None where nothing was measured.

    Raises StorageUnavailable, ObjectCorrupt or LeaseLost.
    """
    records = folder / SERIES
    if not series.write(publisher.lease, records):
        return []
    table = folder / f"{job.id}-metrics.csv"
    series.write_csv(records, table)
    return [_store(job, publisher, table, patience)]


def make_if_possible(job: Job, publisher: Publisher, folder: Path) -> list[File]:
    """As `make`, for a job that ends without a model: that it ends does not wait for a storage
    that is away, nor for a disk that is full. Raises LeaseLost."""
    try:
        return make(job, publisher, folder, patience=0.0)
    except (StorageUnavailable, ObjectCorrupt, ObjectMissing, OSError) as error:
        log.warning("no result files: %s", error, extra={"job_id": job.id})
        return []


def attach(session: Session, job: Job, made: list[File]) -> None:
    """Write the files' rows, and name them in a job that this transaction has locked."""
    for file in made:
        files.add(session, file)
    job.result_files = [*(file.id for file in made), *job.result_files]


def _store(job: Job, publisher: Publisher, path: Path, patience: float) -> File:
    described = describe(path)
    file_id = ids.file()
    key = files.storage_key(job.project_id, file_id)
    publisher.store(path, key, described["sha256"], patience)
    return File(
        id=file_id,
        project_id=job.project_id,
        filename=path.name,
        purpose=RESULTS_PURPOSE,
        bytes=described["bytes"],
        sha256=described["sha256"],
        storage_key=key,
    )
