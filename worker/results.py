"""The result files of a job: what is left to look at when it has ended, however it did."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType

from core import ids
from models import events, files, leases
from models.db import Session
from models.files import RESULTS_PURPOSE, File
from models.jobs import Job
from worker import series
from worker.context import Context
from worker.drawing import Drawing
from worker.lease import Lease
from worker.publisher import PATIENCE_SECONDS, STORAGE_FAULTS, describe, store_file
from worker.waiting import GivenUp, Wait, while_wanted

SERIES = "series.jsonl"
STOPPED_SECONDS = 15.0
"""How long those of a job that is to stop are waited for."""

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
        wait: Wait,
        folder: Path,
        *,
        drawn: bool = True,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """`patience` is how long, in seconds, a storage that is away is tried again. Raises
        LeaseLost or OSError."""
        self._context, self._job, self._wait, self._folder = context, job, wait, folder
        self._patience = patience
        self._files: list[File] = []
        self._fault: str | None = None
        self._measured = series.write(wait.lease, folder / SERIES)
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

        Raises StorageUnavailable, ObjectCorrupt, ObjectMissing, OSError, LeaseLost or GivenUp.
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
        store_file(self._context, self._wait, path, key, described["sha256"], self._patience)
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
    wait = Wait(context, lease, STOPPED_SECONDS)
    try:
        with Results(context, job, wait, folder, drawn=drawn, patience=0.0) as made:
            while_wanted(made.store, wait.check)
            return made
    except (*STORAGE_FAULTS, OSError, GivenUp) as error:
        log.warning("no result files: %r", error, extra={"job_id": job.id})
        of_disk = isinstance(error, OSError)
        why = "the worker's disk failed" if of_disk else "the object storage did not take them"
        message = f"The result files are lost: {why}. The metrics are all there."
        lease.write(partial(_tell, job, message, ids.event()))
        return None


def _tell(job: Job, message: str, event_id: str, session: Session) -> None:
    leases.hold(session, job.id, job.fence)
    events.add(session, job.id, message, level="warn", event_id=event_id)
