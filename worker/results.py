"""The result files of a job: what is left to look at when it has ended, however it did."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from core import ids
from core.storage import ObjectCorrupt, ObjectMissing, StorageUnavailable
from models import events, files
from models.db import Session
from models.files import RESULTS_PURPOSE, File
from models.jobs import Job
from worker import series
from worker.context import Context
from worker.drawing import Drawing
from worker.lease import Lease
from worker.publisher import PATIENCE_SECONDS, describe, store_file

SERIES = "series.jsonl"

log = logging.getLogger(__name__)


class Results:
    """The metric series as CSV, then the report and the event file where they can be drawn.

    The report is drawn from the beginning of the block on. There are no files where nothing was
    measured.
    """

    def __init__(
        self,
        context: Context,
        job: Job,
        lease: Lease,
        folder: Path,
        *,
        drawn: bool = True,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """`patience` is how long, in seconds, a storage that is away is waited for. Raises
        LeaseLost or OSError."""
        self._context, self._job, self._lease, self._folder = context, job, lease, folder
        self._patience = patience
        self._files: list[File] = []
        self._fault: str | None = None
        self._measured = series.write(lease, folder / SERIES)
        self._drawing = Drawing(context, folder) if drawn and self._measured else None
        self._stack = ExitStack()

    def __enter__(self) -> Results:
        if self._drawing is not None:
            self._stack.enter_context(self._drawing)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def store(self) -> None:
        """Store the files; nobody sees them yet.

        Raises StorageUnavailable, ObjectCorrupt, ObjectMissing, OSError or LeaseLost.
        """
        if not self._measured:
            return
        table = self._folder / f"{self._job.id}-metrics.csv"
        series.write_csv(self._folder / SERIES, table)
        paths = [table]
        if self._drawing is not None:
            drawn, self._fault = self._drawing.finish()
            paths += drawn
        self._files = [self._stored(path) for path in paths]

    def attach(self, session: Session, job: Job) -> None:
        """Write the files' rows, and name them in a job that this transaction has locked. The CSV
        comes first, as with OpenAI."""
        for file in self._files:
            files.add(session, file)
        job.result_files = [*(file.id for file in self._files), *job.result_files]
        if self._fault is not None:
            message = f"The report could not be drawn: {self._fault}. The metrics are all there."
            events.add(session, job.id, message, level="warn")

    def _stored(self, path: Path) -> File:
        described = describe(path)
        file_id = ids.file()
        key = files.storage_key(self._job.project_id, file_id)
        store_file(self._context, self._lease, path, key, described["sha256"], self._patience)
        return File(
            id=file_id,
            project_id=self._job.project_id,
            filename=path.name,
            purpose=RESULTS_PURPOSE,
            bytes=described["bytes"],
            sha256=described["sha256"],
            storage_key=key,
        )


def of_ended(
    context: Context, job: Job, lease: Lease, folder: Path, *, drawn: bool
) -> Results | None:
    """Those of a job that ends without a model, stored: that it ends does not wait for a storage
    that is away, nor for a disk that is full. Raises LeaseLost."""
    try:
        with Results(context, job, lease, folder, drawn=drawn, patience=0.0) as made:
            made.store()
            return made
    except (StorageUnavailable, ObjectCorrupt, ObjectMissing, OSError) as error:
        log.warning("no result files: %s", error, extra={"job_id": job.id})
        return None
