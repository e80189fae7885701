"""A run's good end: weights stored and verified, then one transaction that makes all of it seen."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from core import ids
from models import files, leases, metrics, registry
from models.db import Session
from models.files import RESULTS_PURPOSE, File
from models.jobs import Job
from models.registry import FineTunedModel
from models.state import Status
from worker.publisher import Publisher, describe

RESULT = "metrics.csv"
MOST_POINTS = 10_000_000


def succeed(job: Job, publisher: Publisher, folder: Path, done: dict[str, Any]) -> None:
    """Register the model, its files, the result file and `succeeded`, all or nothing.

    Raises StorageUnavailable, ObjectCorrupt or LeaseLost with nothing of it visible.
    """
    prefix, stored = publisher.publish_output(folder / done["output"])
    result = _result_file(job, publisher, folder / RESULT)
    name = registry.name(job.base_model, publisher.project_name, job.suffix, job.id)
    model = FineTunedModel(
        id=name,
        project_id=job.project_id,
        job_id=job.id,
        base_model=job.base_model,
        task=job.task or "",
        prefix=prefix,
        files=stored,
        bytes=sum(file["bytes"] for file in stored),
        metrics=done["metrics"],
    )

    def end(session: Session) -> None:
        held = leases.hold(session, job.id, job.fence)
        registry.add(session, model)
        files.add(session, result)
        leases.end(
            session,
            job.id,
            job.fence,
            Status.SUCCEEDED,
            "succeeded",
            data={"fine_tuned_model": name, "metrics": done["metrics"]},
            fine_tuned_model=name,
            result_files=[result.id, *held.result_files],
            trained_tokens=done["trained_tokens"],
            progress={**(held.progress or {}), "step": done["step"], "percent": 100.0},
        )

    publisher.lease.write(end)


def _result_file(job: Job, publisher: Publisher, path: Path) -> File:
    """The metric series as CSV, in the columns of OpenAI's result files where they exist."""
    points = publisher.lease.write(
        lambda session: metrics.series(session, job.id, split=None, after_step=0, limit=MOST_POINTS)
    ).rows
    by_step: dict[int, dict[str, Any]] = {}
    names: dict[str, None] = {}
    for point in points:
        row = {f"{point.split}_{key}": value for key, value in point.values.items()}
        names |= dict.fromkeys(row)
        by_step.setdefault(point.step, {}).update(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in by_step.items())
    described = describe(path)
    file_id = ids.file()
    key = files.storage_key(job.project_id, file_id)
    publisher.store(path, key, described["sha256"])
    return File(
        id=file_id,
        project_id=job.project_id,
        filename=f"{job.id}-metrics.csv",
        purpose=RESULTS_PURPOSE,
        bytes=described["bytes"],
        sha256=described["sha256"],
        storage_key=key,
    )
