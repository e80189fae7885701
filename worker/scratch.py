"""Folders of work under way on this machine's disk, and what killed processes left of them."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models import leases, validation_leases
from models.db import Session
from worker.context import Context

JOBS = "jobs"
VALIDATION = "validation"

log = logging.getLogger(__name__)


_NAME = re.compile(r"\.?((?:ftjob|ftval)-[^.]+)\.([0-9]+)")


def named_after(folder: Path) -> tuple[str, int] | None:
    """The job or validation, and its fence, of a folder under way; None for what others put there,
    such as a disk's `lost+found`."""
    found = _NAME.fullmatch(folder.name)
    return (found[1], int(found[2])) if found else None


def is_over(session: Session, folder: Path) -> bool:
    """Whether the attempt or the validation that a folder is named after has ended."""
    named = named_after(folder)
    if named is None:
        return False
    owner, fence = named
    ended = validation_leases.is_over if owner.startswith("ftval-") else leases.is_over
    return ended(session, owner, fence)


@contextmanager
def occupied(folder: Path) -> Iterator[Path]:
    """A new folder that is this process's until the block or the process ends; then it is removed.

    It bears a lock from the moment on at which it has its name. The system takes the lock from a
    dead process, so whoever finds the folder can tell whether its owner lives. Where the file
    system keeps no locks, nobody can, and the lease alone counts.
    """
    begun = folder.with_name(f".{folder.name}")
    begun.mkdir(parents=True)
    descriptor = os.open(begun, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            log.info("the disk of %s keeps no locks: %s", folder.parent, error)
        begun.rename(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def is_deserted(folder: Path) -> bool:
    """Whether the process that made an `occupied` folder is dead."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # Locked by its owner, or on a file system that keeps no locks.
        return False
    finally:
        os.close(descriptor)
    return True


def hand_back(context: Context) -> None:
    """Queue the jobs of dead workers of this machine again, without waiting for their leases."""
    for folder in context.scratch(JOBS).iterdir():
        named = named_after(folder)
        # Before it has its name, a folder of a living process may be without its lock.
        if named and not folder.name.startswith(".") and is_deserted(folder):
            job_id, fence = named
            reason = "The worker's process ended without a word."
            with context.transaction() as session:
                try:
                    job = leases.hold(session, job_id, fence)
                except leases.LeaseLost:
                    continue  # Somebody else has noticed.
                leases.lose(session, job, "worker_died", reason, context.settings.max_failures)
            log.warning("took back the job of a dead worker", extra={"job_id": job_id})


def make_room(folder: Path, most: int, spared_seconds: float = 0.0) -> None:
    """Remove the files that were not used for longest until all others take no more than `most`
    bytes, but none used within `spared_seconds`. Who has one of them mapped goes on reading it."""
    found = []
    for path in folder.glob("*.arrow"):
        with suppress(FileNotFoundError):  # Another worker of this machine makes room as well.
            found.append((path.stat(), path))
    left = sum(state.st_size for state, _ in found)
    spared_since = time.time() - spared_seconds
    for state, path in sorted(found, key=lambda one: one[0].st_mtime):
        if left <= most or state.st_mtime > spared_since:
            return
        path.unlink(missing_ok=True)
        left -= state.st_size


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
        with suppress(FileNotFoundError):  # Completed, or removed by another worker.
            if part.stat().st_mtime < before:
                part.unlink()
                log.info("removed a download that was cut off: %s", part.name)
