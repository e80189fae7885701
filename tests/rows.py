"""Rows for tests, written through the same functions that the service uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core import ids
from core.storage import ObjectStore
from models import jobs, leases, projects, registry, transitions, validation_leases, validations
from models.db import Engine, transaction
from models.files import File
from models.jobs import Job
from models.registry import FineTunedModel
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


def make_model(engine: Engine, store: ObjectStore, project_id: str, folder: Path, task: str) -> str:
    """A folder in Hugging Face format as the model of a job that is over; no worker may take it
    before."""
    job_id = make_job(engine, project_id, task=task, requires=["nowhere"])
    prefix = f"jobs/{job_id}/attempts/1/output"
    stored = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        written = store.write_file(f"{prefix}/{name}", path)
        stored.append({"path": name, "bytes": written.bytes, "sha256": written.sha256})
    model = FineTunedModel(
        id=f"ft:tiny:default::{ids.new('')}",
        project_id=project_id,
        job_id=job_id,
        base_model="tiny",
        task=task,
        prefix=prefix,
        files=stored,
        bytes=sum(file["bytes"] for file in stored),
        metrics={},
    )
    with transaction(engine) as session:
        registry.add(session, model)
        transitions.move(session, session.get_one(Job, job_id), Status.CANCELLED)
    return model.id


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
