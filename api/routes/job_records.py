"""What a job leaves behind: events, checkpoints, metrics, logs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from api import series, stream
from api.auth import Caller
from api.context import Here, Transaction
from api.errors import errors
from api.paging import After, Limit, ListOf, page_of
from api.shapes.job_records import (
    JobCheckpoint,
    JobEvent,
    MetricList,
    MetricSeries,
    job_checkpoint,
    job_event,
    metric_point,
    metric_series,
)
from api.stream import Followed
from core.errors import NotFound
from models import checkpoints, downsampled, events, jobs, metrics
from models.follow import Cursor

MAX_POINTS = 10_000
PAGE_POINTS = 1000
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
    response_model=MetricList | MetricSeries,
    responses={
        200: {
            "content": {
                series.CSV: {"schema": {"type": "string"}},
                series.ARROW: {"schema": {"type": "string", "format": "binary"}},
            }
        }
    },
)
async def list_metrics(
    job_id: str,
    here: Here,
    caller: Caller,
    db: Transaction,
    after_step: Annotated[int, Query(ge=-1, le=LAST_STEP)] = -1,
    split: Literal["train", "valid"] | None = None,
    names: Annotated[
        str | None,
        Query(max_length=1000, description="Of these series alone: `loss,accuracy`."),
    ] = None,
    points: Annotated[
        int | None,
        Query(
            ge=downsampled.LEAST_POINTS,
            le=MAX_POINTS,
            description="Each series by at most so many of its points, chosen by LTTB so that it "
            "looks the same. Then the answer is never paged.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            le=MAX_POINTS,
            description=f"Points of a page: of JSON {PAGE_POINTS} if it is left out, of the other "
            "formats all.",
        ),
    ] = None,
    format: Annotated[
        series.Format | None, Query(description="Goes before the `Accept` header.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> MetricList | Response:
    """The series of every step, as JSON, CSV or an Arrow stream. A step is never split between two
    pages."""
    job = await db(jobs.get, caller.project_id, job_id)
    wanted = [name.strip() for name in names.split(",")] if names is not None else None
    chosen = series.chosen(format, accept)
    media_type = series.ARROW if chosen == "arrow" else series.CSV
    if points is not None:
        few = await db(
            downsampled.read,
            job.id,
            points=points,
            split=split,
            names=wanted,
            after_step=after_step,
        )
        if chosen != "json":
            return StreamingResponse(series.few(few, chosen), media_type=media_type)
        # As text at once: a validation of each number would take longer than all the rest.
        return Response(metric_series(few).model_dump_json(), media_type="application/json")
    if chosen != "json":
        lines = series.whole(
            here, job.id, chosen, split=split, names=wanted, after_step=after_step, limit=limit
        )
        return StreamingResponse(lines, media_type=media_type)
    page = await db(
        metrics.series, job.id, split=split, after_step=after_step, limit=limit or PAGE_POINTS
    )
    return MetricList(data=[metric_point(row, wanted) for row in page.rows], has_more=page.has_more)


@router.get("/logs", response_class=PlainTextResponse)
async def job_logs(job_id: str, caller: Caller, db: Transaction) -> str:
    """The last lines that the job's trainer wrote."""
    return (await db(jobs.get, caller.project_id, job_id)).log_tail or ""
