"""What killed processes left on this machine's disk, and its removal."""

from __future__ import annotations

import logging
import shutil
import time

from models import leases
from worker.context import Context

JOBS = "jobs"
VALIDATION = "validation"

log = logging.getLogger(__name__)


def remove_strays(context: Context) -> None:
    """Remove the folders of attempts that are over by the database's word, and downloads that
    nobody has gone on with for long. Safe beside other workers on the same disk."""
    for kind in (JOBS, VALIDATION):
        for folder in context.scratch(kind).iterdir():
            job_id, _, fence = folder.name.rpartition(".")
            with context.transaction() as session:
                is_over = leases.is_over(session, job_id, int(fence))
            if is_over:
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed the folder of an attempt that is over: %s", folder.name)
    before = time.time() - context.settings.orphan_seconds
    for part in context.scratch("cache").rglob("*.part"):
        if part.stat().st_mtime < before:
            part.unlink(missing_ok=True)
            log.info("removed a download that was cut off: %s", part.name)
