"""What a job leaves behind: events, checkpoints, metrics, logs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from api import stream
from api.auth import Caller
from api.context import Transaction
from api.errors import errors
from api.paging import After, Limit, ListOf, page_of
from api.shapes.job_records import (
    JobCheckpoint,
    JobEvent,
    MetricList,
    job_checkpoint,
    job_event,
    metric_point,
    metrics_csv,
)
from api.stream import Followed
from core.errors import NotFound
from models import checkpoints, events, jobs, metrics
from models.follow import Cursor

MAX_POINTS = 10_000
LAST_STEP = 2**31 - 1

router = APIRouter(
    prefix="/fine_tuning/jobs/{job_id}", tags=["Fine-tuning"], responses=errors(NotFound)
)


@router.get(
    "/events",
    response_model=ListOf[JobEvent],
    responses={200: {"content": {stream.MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def list_events(
    job_id: str,
    caller: Caller,
    db: Transaction,
    feeds: Followed,
    after: After = None,
    limit: Limit = 20,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[
        str | None,
        Header(max_length=64, description="Of a stream: the last `id` that came, to go on after."),
    ] = None,
) -> ListOf[JobEvent] | Response:
    """Newest first. With `Accept: text/event-stream`, a stream of all that happens, oldest first:
    `metrics`, `event`, after what came together the `job`, and `end`."""
    job = await db(jobs.get, caller.project_id, job_id)
    if stream.MEDIA_TYPE in accept:
        cursor = Cursor.parse(last_event_id) if last_event_id else Cursor()
        return StreamingResponse(
            feeds.follow(caller.project_id, job.id, cursor),
            media_type=stream.MEDIA_TYPE,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
    return page_of(await db(events.listing, job.id, after=after, limit=limit), job_event)


@router.get("/checkpoints")
async def list_checkpoints(
    job_id: str, caller: Caller, db: Transaction, after: After = None, limit: Limit = 10
) -> ListOf[JobCheckpoint]:
    """Newest first. Each is a model of its own, which can be downloaded by its name."""
    job = await db(jobs.get, caller.project_id, job_id)
    return page_of(await db(checkpoints.listing, job.id, after=after, limit=limit), job_checkpoint)


@router.get(
    "/metrics",
    response_model=MetricList,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def list_metrics(
    job_id: str,
    caller: Caller,
    db: Transaction,
    after_step: Annotated[int, Query(ge=-1, le=LAST_STEP)] = -1,
    split: Literal["train", "valid"] | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_POINTS)] = 1000,
    format: Annotated[
        Literal["json", "csv"] | None, Query(description="Goes before the `Accept` header.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> MetricList | Response:
    """The series of every step, as JSON or CSV. A step is never split between two pages."""
    job = await db(jobs.get, caller.project_id, job_id)
    page = await db(metrics.series, job.id, split=split, after_step=after_step, limit=limit)
    if format == "csv" or (format is None and "text/csv" in accept):
        return Response(metrics_csv(page.rows), media_type="text/csv")
    return MetricList(data=[metric_point(row) for row in page.rows], has_more=page.has_more)


@router.get("/logs", response_class=PlainTextResponse)
async def job_logs(job_id: str, caller: Caller, db: Transaction) -> str:
    """The last lines that the job's trainer wrote."""
    return (await db(jobs.get, caller.project_id, job_id)).log_tail or ""
