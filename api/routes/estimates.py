"""What a job would take, told before it is submitted."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import APIRouter, Depends

from api import submission
from api.auth import Caller
from api.body import JsonBody
from api.context import Context, Here
from api.data_choices import require_files
from api.errors import errors
from api.shapes.estimates import FineTuningEstimate, fine_tuning_estimate
from core.errors import BadData, Conflict, LuthierError, NotFound, TooLarge
from models import catalogue, fit, origins, sizes, validations
from models.forecast import forecast
from models.jobs import Job
from models.resolve import DataFacts, resolve
from models.spec import JobRequest
from models.validations import PENDING, Validation, ValidationStatus

ASK_SECONDS = 0.2

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"])

_body = JsonBody(JobRequest)


@router.post(
    "/estimate",
    responses=errors(NotFound, Conflict, TooLarge),
    openapi_extra=_body.in_openapi(),
)
async def estimate_job(
    asked: Annotated[JobRequest, Depends(_body)], here: Here, caller: Caller
) -> FineTuningEstimate:
    """What a job with this body would do and take: its spec, steps, tokens, memory and time.

    Its files must have been checked; a check that they still need is begun, and
    `validation_pending` says where it can be seen.
    """
    submission.check(asked)
    requires = submission.requires(asked.resources)
    base = await submission.find_base_model(here.settings, asked.model)
    if isinstance(base, LuthierError):
        raise base
    async with here.transaction() as db:
        origin = await db(origins.of_request, caller.project_id, asked)
        if base is not None and asked.task is not None:
            fit.check(base, asked.task, asked.tuning)
        # Who was told to ask again must not be told so for ever, by another fetch each time.
        asked = await require_files(db, here.settings, caller.project_id, asked, anew=False)
    job = Job(
        project_id=caller.project_id,
        request=asked.model_dump(mode="json", exclude_unset=True),
        model=asked.model,
        origin=origin,
        training_file_id=asked.training_file,
        validation_file_id=asked.validation_file,
    )
    checked = await _checked(here, job)
    assert checked.task is not None
    assert checked.training is not None
    submission.check(asked.model_copy(update={"task": checked.task}))
    if base is None:
        base = await asyncio.to_thread(catalogue.find, here.settings, job.base_model)
    elif origin is None:
        fit.check(base, checked.task, asked.tuning)
    spec = resolve(
        asked,
        DataFacts.of(checked.task, checked.training, checked.validation),
        model=base.name,
        model_revision=base.revision,
        from_checkpoint=origin["name"] if origin else None,
        seed=asked.seed or 0,
        max_job_tokens=here.settings.max_job_tokens,
        day=datetime.now(UTC).date().isoformat(),
    )
    size = await asyncio.to_thread(sizes.of, base)
    async with here.transaction() as db:
        found = await db(forecast, spec, size, checked.training["report"], requires)
    return fine_tuning_estimate(spec, found)


async def _checked(here: Context, job: Job) -> Validation:
    """The validation that such a job would be queued by.

    Raises Conflict while it has not ended, and what it found wrong with the files.
    """
    deadline = time.monotonic() + here.settings.estimate_wait_seconds
    while True:
        # No transaction stays open while it is waited.
        async with here.transaction() as db:
            found = await db(validations.of_equal_data_or_new, job)
        if found.status == ValidationStatus.QUEUED and found.worker_id is None:
            await asyncio.to_thread(here.doorbell.validate, found.id)
        while found.status in PENDING and time.monotonic() < deadline:
            await asyncio.sleep(ASK_SECONDS)
            async with here.transaction() as db:
                found = await db(validations.get, job.project_id, found.id)
        if found.status in PENDING:
            raise Conflict(
                f"Its files are being checked. Ask again once the validation {found.id} has ended: "
                f"GET /v1/fine_tuning/validations/{found.id} tells.",
                code="validation_pending",
                param="training_file",
            )
        if validations.answers(job, found):
            break
    if found.error is not None:
        raise _raised(cast(dict[str, object], found.error))
    return found


def _raised(error: dict[str, object]) -> BadData:
    return BadData(
        str(error["message"]),
        code=str(error["code"]),
        param=cast(str | None, error["param"]),
        details=cast(list[dict[str, object]], error["details"]),
    )
