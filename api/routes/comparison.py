"""Jobs side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Caller
from api.context import Transaction
from api.errors import errors
from api.routes.jobs import shaped
from api.shapes.comparison import Comparison, comparison
from core.errors import NotFound
from models import jobs

LEAST, MOST = 2, 10

router = APIRouter(prefix="/fine_tuning", tags=["Fine-tuning"])


@router.get("/compare", responses=errors(NotFound))
async def compare_jobs(
    caller: Caller,
    db: Transaction,
    job: Annotated[
        list[str], Query(min_length=LEAST, max_length=MOST, description="A job's id; repeat it.")
    ],
) -> Comparison:
    """What differs between jobs: in their specs, their data, and what they ran on."""
    rows = [await db(jobs.get, caller.project_id, job_id, "job") for job_id in job]
    return comparison(await shaped(db, rows))
