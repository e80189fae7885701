"""A run's good end: weights stored and verified, then one transaction that makes all of it seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models import leases, registry
from models.db import Session
from models.jobs import Job
from models.registry import FineTunedModel
from models.state import Status
from worker.context import Context
from worker.publisher import Publisher, Stored
from worker.results import Results
from worker.waiting import while_wanted


def succeed(
    context: Context, job: Job, publisher: Publisher, folder: Path, done: dict[str, Any]
) -> None:
    """Register the model, its files, the result files and `succeeded`, all or nothing.

    Raises StorageUnavailable, ObjectCorrupt, LeaseLost, or GivenUp, with nothing of it visible.
    """
    wait = publisher.wait
    with Results(context, job, wait, folder) as results:

        def store() -> tuple[str, Stored]:
            uploaded = publisher.publish_output(folder / done["output"])
            results.store()
            return uploaded

        prefix, stored = while_wanted(store, wait.check)
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
        ended = leases.end(
            session,
            job.id,
            job.fence,
            Status.SUCCEEDED,
            "succeeded",
            data={"fine_tuned_model": name, "metrics": done["metrics"]},
            fine_tuned_model=name,
            trained_tokens=done["trained_tokens"],
            progress={**(held.progress or {}), "step": done["step"], "percent": 100.0},
        )
        results.attach(session, ended)

    publisher.lease.write(end)
