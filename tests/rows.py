"""Rows for tests, written through the same functions that the service uses."""

from __future__ import annotations

from typing import Any

from core import ids
from models import jobs, leases, projects, transitions
from models.db import Engine, transaction
from models.files import File
from models.jobs import Job
from models.state import Status


def make_project(engine: Engine, name: str = "default") -> str:
    with transaction(engine) as session:
        return projects.ensure(session, name).id


def make_file(engine: Engine, project_id: str, **values: Any) -> str:
    with transaction(engine) as session:
        columns = {
            "filename": "train.csv",
            "purpose": "fine-tune",
            "bytes": 3,
            "sha256": "0" * 64,
            "storage_key": f"files/{project_id}/{ids.file()}",
        } | values
        file = File(project_id=project_id, **columns)
        session.add(file)
        session.flush()
        return file.id


def make_job(engine: Engine, project_id: str, *, queued: bool = True, **values: Any) -> str:
    """A job that waits in the queue, or one whose files are still to be validated."""
    file_id = values.pop("training_file_id", None) or make_file(engine, project_id)
    columns = {
        "request": {"model": "all-MiniLM-L6-v2", "training_file": file_id},
        "model": "all-MiniLM-L6-v2",
        "seed": 1,
        "requires": [],
    } | values
    with transaction(engine) as session:
        job = jobs.create(session, Job(project_id=project_id, training_file_id=file_id, **columns))
        if queued:
            transitions.move(session, job, Status.QUEUED)
        return job.id


def read_job(engine: Engine, job_id: str) -> Job:
    with transaction(engine) as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job


def claim(engine: Engine, worker: str = "worker-a", lease_seconds: float = 30) -> Job:
    with transaction(engine) as session:
        job = leases.claim_training(session, worker, ["cpu"], lease_seconds)
    assert job is not None
    return job
