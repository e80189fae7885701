"""Rows for tests, written through the same functions that the service uses."""

from __future__ import annotations

from typing import Any

from core import ids
from models import jobs, leases, projects, transitions, validation_leases, validations
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
        job = Job(project_id=project_id, training_file_id=file_id, **columns)
        if not queued:
            job.validation_id = validations.for_job(session, job).id
        jobs.create(session, job)
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


def validated(engine: Engine, job_id: str) -> None:
    """Have the validation that a job waits for succeed, without looking at any file."""
    with transaction(engine) as session:
        job = session.get_one(Job, job_id)
        assert job.validation_id is not None
        held = validation_leases.claim(session, "control-a", 30, job.validation_id)
        assert held is not None
        validation_leases.succeed(
            session,
            held.id,
            held.fence,
            keep_seconds=60,
            task="text-classification",
            training={"rows": 2, "labels": [], "sha256": "0" * 64, "shape": "", "report": {}},
        )
