"""Fine-tuning jobs: create, list, retrieve; cancel, pause, resume."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request
from pydantic import RootModel

from api import integrations, merge, submission
from api.auth import Caller
from api.body import JsonBody
from api.context import Here, Transaction
from api.errors import errors
from api.idempotent import Repeatable
from api.paging import After, Limit, ListOf, list_of
from api.shapes.jobs import Beside, FineTuningJob, fine_tuning_job
from core.errors import Conflict, LuthierError, NotFound, TooLarge, Unprocessable
from models import attempts, control, files, jobs, queue
from models.db import Database
from models.jobs import Job
from models.spec import JobRequest
from models.state import Desired, Status

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"])

StopMode = Annotated[
    Literal["save", "now"],
    Query(description="`save` makes a last checkpoint; `now` stops after the step under way."),
]


class Overrides(RootModel[dict[str, Any]]):
    """What of a job's request is to be otherwise: the body of a create, as far as it differs."""


_job_body = JsonBody(JobRequest)
_overrides = JsonBody(Overrides, may_be_empty=True)
_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


async def shaped(db: Database, rows: list[Job]) -> list[FineTuningJob]:
    """The rows with what other tables say of them, in as many queries however many they are."""
    tried = await db(attempts.of_jobs, [job.id for job in rows])
    places = await db(queue.places, rows)
    used = {job.training_file_id for job in rows} | {job.validation_file_id for job in rows}
    hashes = await db(files.hashes, used)
    return [fine_tuning_job(job, Beside(tried[job.id], places.get(job.id), hashes)) for job in rows]


@router.post(
    "",
    responses=errors(NotFound, Unprocessable, TooLarge),
    openapi_extra=_job_body.in_openapi(),
)
async def create_job(
    asked: Annotated[JobRequest, Depends(_job_body)],
    call: Repeatable,
    here: Here,
    caller: Caller,
    db: Transaction,
    after_commit: BackgroundTasks,
) -> FineTuningJob:
    """Submit a job. Its files are validated row by row before it is queued."""
    return await _submit(asked, call, here, caller, db, after_commit)


@router.post(
    "/{job_id}/clone",
    responses=errors(NotFound, Unprocessable, TooLarge),
    openapi_extra=_overrides.in_openapi(),
)
async def clone_job(
    job_id: str,
    changes: Annotated[Overrides, Depends(_overrides)],
    call: Repeatable,
    here: Here,
    caller: Caller,
    db: Transaction,
    after_commit: BackgroundTasks,
) -> FineTuningJob:
    """Submit a job again, of the same seed, with what the body changes of its request: by JSON
    merge patch (RFC 7396), so that null takes a field away."""
    # Over before the hub is asked for the model: that may take seconds.
    async with here.transaction() as before:
        original = await before(jobs.get, caller.project_id, job_id)
    request = {**original.request, "seed": original.seed}
    asked = _job_body.checked(merge.patched(request, changes.root))
    return await _submit(asked, call, here, caller, db, after_commit, cloned_from=original.id)


async def _submit(
    asked: JobRequest,
    call: Repeatable,
    here: Here,
    caller: Caller,
    db: Transaction,
    after_commit: BackgroundTasks,
    *,
    cloned_from: str | None = None,
) -> FineTuningJob:
    submission.check(asked)
    integrations.check(here.settings, asked.integrations)
    base = await submission.find_base_model(here.settings, asked.model)

    async def make() -> str:
        if isinstance(base, LuthierError):
            raise base
        job = await submission.write(
            db, here.settings, caller.project_id, asked, base, cloned_from=cloned_from
        )
        job.traceparent = here.tracing.current()
        return job.id

    job_id, is_new = await call.once(db, asked, make)
    job = await db(jobs.get, caller.project_id, job_id)
    if is_new and job.validation_id is not None:
        after_commit.add_task(here.doorbell.validate, job.validation_id)
    return (await shaped(db, [job]))[0]


@router.get(
    "",
    openapi_extra={
        "parameters": [
            {
                "name": "metadata",
                "in": "query",
                "style": "deepObject",
                "explode": True,
                "description": "Pairs that a job's metadata must hold: `metadata[key]=value`.",
                "schema": {"type": "object", "additionalProperties": {"type": "string"}},
            }
        ]
    },
)
async def list_jobs(
    request: Request, caller: Caller, db: Transaction, after: After = None, limit: Limit = 20
) -> ListOf[FineTuningJob]:
    """Newest first."""
    metadata = {
        found[1]: value
        for name, value in request.query_params.multi_items()
        if (found := _METADATA.fullmatch(name))
    }
    page = await db(jobs.listing, caller.project_id, metadata=metadata, after=after, limit=limit)
    return list_of(await shaped(db, page.rows), has_more=page.has_more)


@router.get("/{job_id}", responses=errors(NotFound))
async def retrieve_job(job_id: str, caller: Caller, db: Transaction) -> FineTuningJob:
    return (await shaped(db, [await db(jobs.get, caller.project_id, job_id)]))[0]


@router.post("/{job_id}/cancel", responses=errors(NotFound, Conflict))
async def cancel_job(
    job_id: str, caller: Caller, db: Transaction, mode: StopMode = "save"
) -> FineTuningJob:
    """Cancel a job. One that runs is stopped by its worker; its checkpoints are kept."""
    job = await db(control.ask, caller.project_id, job_id, Desired.CANCEL, mode)
    return (await shaped(db, [job]))[0]


@router.post("/{job_id}/pause", responses=errors(NotFound, Conflict))
async def pause_job(
    job_id: str, caller: Caller, db: Transaction, mode: StopMode = "save"
) -> FineTuningJob:
    """Take a job from the queue or, with a checkpoint, from its worker, until it is resumed."""
    job = await db(control.ask, caller.project_id, job_id, Desired.PAUSE, mode)
    return (await shaped(db, [job]))[0]


@router.post("/{job_id}/resume", responses=errors(NotFound, Conflict))
async def resume_job(
    job_id: str, here: Here, caller: Caller, db: Transaction, after_commit: BackgroundTasks
) -> FineTuningJob:
    """Queue a paused job again; it goes on from its newest checkpoint."""
    job = await db(control.ask, caller.project_id, job_id, Desired.RUN, "save")
    if job.status == Status.QUEUED:
        after_commit.add_task(here.doorbell.train, job.requires)
    return (await shaped(db, [job]))[0]
