"""Checkpoints are completed while training goes on.

What has to stand still while a checkpoint is made is over when its files are written: to hash and
to flush them takes the disk and one core, and most of the time.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from training import checkpoint
from training.checkpoint import Filled, Written
from training.job import Job
from training.records import Records


class Sealing:
    """Seals one checkpoint at a time, in a thread that does not keep the process from ending."""

    def __init__(self, job: Job, records: Records) -> None:
        self._job, self._records = job, records
        self._sealed: Future[Written] | None = None
        self._told: dict[str, Any] = {}

    def begin(self, filled: Filled, **told: Any) -> None:
        """Seal it from now on; the one before must have been settled. `told` is what its record
        tells beside the step and the files."""
        assert self._sealed is None
        sealed: Future[Written] = Future()

        def seal() -> None:
            try:
                sealed.set_result(filled.seal())
            except BaseException as error:  # noqa: BLE001 - raised where it is settled
                sealed.set_exception(error)

        self._sealed, self._told = sealed, {"step": filled.step, **told}
        threading.Thread(target=seal, name=f"seal step {filled.step}", daemon=True).start()

    def settle(self, *, wait: bool) -> None:
        """Tell of the checkpoint that was begun, if it is complete or by `wait` once it is, and
        drop those no longer wanted. Raises what went wrong with it."""
        if self._sealed is None or not (wait or self._sealed.done()):
            return
        sealed, self._sealed = self._sealed, None
        written = sealed.result()
        self._records.write(
            "checkpoint",
            path=str(written.path.relative_to(self._job.folder)),
            bytes=written.bytes,
            seconds=written.seconds,
            **self._told,
        )
        checkpoint.retire(self._job.checkpoints)
