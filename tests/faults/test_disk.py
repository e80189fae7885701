"""A worker's disk that is full, or read-only. Row 15."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.checkpoints import newest_first
from models.db import transaction
from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG, assert_as_if_unbroken
from tests.faults.processes import wait_for

SIZE = 64 * 1024 * 1024


@contextlib.contextmanager
def mounted(folder: Path, mode: str) -> Iterator[None]:
    """A small file system of its own over this folder, read-write or read-only."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755,{mode}", "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small_disk(fleet: Fleet) -> Iterator[Path]:
    """A small disk for one worker's data folder."""
    folder = fleet.folder / "machines" / "small"
    folder.mkdir(parents=True, exist_ok=True)
    with mounted(folder, "rw"):
        yield folder
        for worker in fleet.alive("worker"):
            fleet.end(worker)


@pytest.mark.faults
def test_a_full_disk_costs_a_delay(fleet: Fleet, small_disk: Path) -> None:
    """Row 15: the last checkpoint is intact, the code is clear, the worker lives, and with room
    again the job goes on to the weights that it would have had."""
    fleet.unbroken_sha256(**LONG)
    for other in fleet.alive("worker"):
        fleet.end(other)
    worker = fleet.start_worker(machine=small_disk)
    job_id = fleet.submit(fleet.upload(), **LONG)
    wait_for("a checkpoint", lambda: fleet.newest_checkpoint(job_id) or None)
    filler = small_disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(64 * 1024))
            file.flush()
    broken = wait_for("an attempt ends", lambda: fleet.ended_attempts(job_id) or None)
    assert broken[0]["outcome"] == "disk_full"
    assert "disk" in broken[0]["reason"]
    warned = [e for e in fleet.events(job_id) if e["level"] == "warn" and "disk" in e["message"]]
    assert warned
    with transaction(fleet.engine) as session:
        newest = newest_first(session, job_id)[0]
    for file in newest.files:
        fleet.store.verify(f"{newest.prefix}/{file['path']}", sha256=file["sha256"])
    assert worker.alive
    filler.unlink()
    fleet.wait_status(job_id, *TERMINAL, seconds=180)
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert worker.alive


@pytest.mark.faults
def test_a_read_only_disk_costs_a_delay(fleet: Fleet) -> None:
    """Row 15: where job folders lie, nothing can be written any more."""
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 1)
    with mounted(worker.data_dir / "worker" / "jobs", "ro"):
        ended = wait_for("an attempt ends", lambda: fleet.ended_attempts(job_id) or None)
        assert ended[0]["outcome"] == "disk_full"
        again = wait_for("the next one too", lambda: fleet.ended_attempts(job_id)[1:] or None)
        assert again[0]["outcome"] == "disk_full"
        assert worker.alive
    job = fleet.wait_status(job_id, *TERMINAL, seconds=180)
    assert job["status"] == "succeeded", job["error"]
    assert fleet.steps_seen(job_id) == list(range(1, LONG["max_steps"] + 1))
    assert worker.alive
