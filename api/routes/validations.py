"""Validations: have data files checked without a job, and read what was found."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends

from api.auth import Caller
from api.body import JsonBody
from api.context import Here, Transaction
from api.data_choices import check_task, require_files
from api.errors import errors
from api.idempotent import Repeatable
from api.paging import After, Limit, ListOf, page_of
from api.shapes.validations import FineTuningValidation, fine_tuning_validation
from api.submission import find_base_model
from core.errors import LuthierError, NotFound, TooLarge, Unprocessable
from models import jobs, registry, validations
from models.data_spec import ValidationRequest
from models.scope import require

router = APIRouter(prefix="/fine_tuning", tags=["Fine-tuning"])

_body = JsonBody(ValidationRequest)


@router.post(
    "/validations",
    responses=errors(NotFound, Unprocessable, TooLarge),
    openapi_extra=_body.in_openapi(),
)
async def create_validation(
    asked: Annotated[ValidationRequest, Depends(_body)],
    call: Repeatable,
    here: Here,
    caller: Caller,
    db: Transaction,
    after_commit: BackgroundTasks,
) -> FineTuningValidation:
    """Check data files row by row, as a job would. A job on equal data will not check it again."""
    check_task(asked.task, trainable=False)
    base = await find_base_model(here.settings, asked.model) if asked.model else None

    async def make() -> str:
        if isinstance(base, LuthierError):
            raise base
        chosen = await require_files(db, here.settings, caller.project_id, asked)
        if asked.model is not None and base is None:
            # It reads text as the model does that it was trained from.
            tuned = await db(registry.get, caller.project_id, asked.model)
            chosen = chosen.model_copy(update={"model": tuned.base_model})
        return (await db(validations.create, caller.project_id, chosen)).id

    validation_id, is_new = await call.once(db, asked, make)
    if is_new:
        after_commit.add_task(here.doorbell.validate, validation_id)
    return fine_tuning_validation(await db(validations.get, caller.project_id, validation_id))


@router.get("/validations")
async def list_validations(
    caller: Caller, db: Transaction, after: After = None, limit: Limit = 20
) -> ListOf[FineTuningValidation]:
    """Newest first."""
    page = await db(validations.listing, caller.project_id, after=after, limit=limit)
    return page_of(page, fine_tuning_validation)


@router.get("/validations/{validation_id}", responses=errors(NotFound))
async def retrieve_validation(
    validation_id: str, caller: Caller, db: Transaction
) -> FineTuningValidation:
    return fine_tuning_validation(await db(validations.get, caller.project_id, validation_id))


@router.get("/jobs/{job_id}/validation", responses=errors(NotFound))
async def job_validation(job_id: str, caller: Caller, db: Transaction) -> FineTuningValidation:
    """The validation that the job waits for, or was queued or failed by."""
    job = await db(jobs.get, caller.project_id, job_id)
    validation_id = require(job.validation_id, "validation", job_id)
    return fine_tuning_validation(await db(validations.get, caller.project_id, validation_id))
