"""A worker's disk that is full, or read-only. Row 15."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from models.catalogue import BaseModel
from models.checkpoints import newest_first
from models.db import transaction
from models.state import TERMINAL
from tests.api.hub import running_hub
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG, assert_as_if_unbroken
from tests.faults.processes import wait_for
from worker import base_models, sources
from worker.context import Context

SIZE = 64 * 1024 * 1024
SMALL = 4 * 1024 * 1024


@contextlib.contextmanager
def mounted(folder: Path, mode: str, size: int = SIZE) -> Iterator[None]:
    """A small file system of its own over this folder, read-write or read-only."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755,{mode}", "tmpfs", folder]
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
def test_a_disk_that_is_full_while_something_is_fetched_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 15: neither the data set's nor the model's, which another worker may fetch."""
    nowhere = {"database_url": "postgresql://nowhere/", "redis_url": "redis://nowhere"}
    context = Context.open(Settings(data_dir=tmp_path, hf_datasets=True, **nowhere))
    files = {"train.jsonl": bytes(2 * SMALL), "config.json": b"{}"}
    with running_hub() as hub, mounted(context.scratch(), "rw", SMALL):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.datasets["lab/large", "main"] = hub.models["lab/large"] = files
        folder = context.scratch("validation", "ftval-x.1")
        with pytest.raises(OSError, match="No space left"):
            sources.bring(context, "hf://datasets/lab/large", folder / "training", "training_file")
        shutil.rmtree(folder)
        model = BaseModel("lab/large", "hub", revision=hub.revision["lab/large"])
        folder = context.scratch("jobs", "ftjob-x.1")
        with pytest.raises(OSError, match="No space left"):
            base_models.obtain(context, model, ["*"], folder, lambda: None)


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
