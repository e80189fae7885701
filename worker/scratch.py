"""What killed processes left on this machine's disk, and its removal."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from models import leases, validation_leases
from models.db import Session
from worker.context import Context

JOBS = "jobs"
VALIDATION = "validation"

log = logging.getLogger(__name__)


def is_over(session: Session, folder: Path) -> bool:
    """Whether the attempt or the validation that a folder is named after has ended."""
    owner, _, fence = folder.name.rpartition(".")
    ended = validation_leases.is_over if owner.startswith("ftval-") else leases.is_over
    return ended(session, owner, int(fence))


def remove_strays(context: Context) -> None:
    """Remove the folders of attempts that are over by the database's word, and downloads that
    nobody has gone on with for long. Safe beside other workers on the same disk."""
    for kind in (JOBS, VALIDATION):
        for folder in context.scratch(kind).iterdir():
            with context.transaction() as session:
                over = is_over(session, folder)
            if over:
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed the folder of an attempt that is over: %s", folder.name)
    before = time.time() - context.settings.orphan_seconds
    for part in context.scratch("cache").rglob("*.part"):
        if part.stat().st_mtime < before:
            part.unlink(missing_ok=True)
            log.info("removed a download that was cut off: %s", part.name)
