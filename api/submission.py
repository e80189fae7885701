"""What a job must be before it is written down: everything that can be told without its data."""

from __future__ import annotations

import asyncio
import secrets

from api.data_choices import check_task, require_files
from core.errors import InvalidRequest, LuthierError
from core.settings import Settings
from models import catalogue, effect, fit, jobs, origins, validations
from models.catalogue import BaseModel
from models.db import Database
from models.jobs import Job
from models.origins import FINE_TUNED
from models.spec import JobRequest, Method, Resources

SEED_BITS = 31


def check(asked: JobRequest) -> None:
    """Refuse what is not there yet, rather than ignore it. Raises InvalidRequest."""
    check_task(asked.task, trainable=True)
    if asked.method is not None:
        _check_method(asked, asked.method)
    if asked.task is not None:
        _check_settings(asked, asked.task)


def _check_settings(asked: JobRequest, task: str) -> None:
    """What does not go with the task, or with each other. What hangs on the data is told later."""
    hyperparameters = asked.chosen_hyperparameters()
    try:
        effect.check(hyperparameters, task)
        effect.check_validation(hyperparameters, asked.validates)
    except InvalidRequest as error:
        method = asked.method
        place = f"method.{method.type}." if method and method.parameters else ""
        raise InvalidRequest(
            str(error), param=f"{place}hyperparameters.{error.param}", code=error.error_code
        ) from error


def _check_method(asked: JobRequest, method: Method) -> None:
    if method.type == "reinforcement":
        raise InvalidRequest(
            "Training by 'reinforcement' is not supported. Supported are 'supervised', for every "
            "task, and 'dpo', for data with answers that are preferred to others "
            "(`preference_loss` may be 'dpo', 'ipo', 'orpo' or 'kto').",
            param="method.type",
            code="unsupported_method",
        )
    for other in {"supervised", "dpo", "reinforcement"} - {method.type}:
        if getattr(method, other) is not None:
            raise InvalidRequest(
                f"`method.{other}` does not go with `method.type` {method.type!r}. Leave it out.",
                param=f"method.{other}",
                code="unsupported_method",
            )
    if method.type == "dpo" and asked.task != "preference":
        raise InvalidRequest(
            f"`method.type` 'dpo' trains the task 'preference', not {asked.task!r}. "
            "Leave one of them out.",
            param="task",
            code="unsupported_method",
        )


def requires(resources: Resources | None) -> list[str]:
    """The capabilities that a worker must have. Raises InvalidRequest where none can."""
    device = resources.device if resources else None
    gpus = (resources.gpus if resources else None) or 0
    if gpus and device == "cpu":
        raise InvalidRequest(
            "`resources` asks for a GPU and for the device 'cpu'. Leave one of them out.",
            param="resources.gpus",
        )
    if gpus > 1:
        return [f"gpus-{gpus}"]
    return ["cuda"] if gpus or device == "cuda" else []


async def find_base_model(settings: Settings, name: str) -> BaseModel | LuthierError | None:
    """The base model, or why there is none: in a thread, for the hub may be asked. None for a
    fine-tuned model, which the database knows.

    The error is given, not raised, because a repeated call must get its first answer even when
    the hub is away by then.
    """
    if name.startswith(FINE_TUNED):
        return None
    try:
        return await asyncio.to_thread(catalogue.find, settings, name)
    except LuthierError as error:
        return error


async def write(
    db: Database,
    settings: Settings,
    project_id: str,
    asked: JobRequest,
    base: BaseModel | None,
    cloned_from: str | None = None,
) -> Job:
    """Check model and files, and write the job. Raises NotFound or InvalidRequest."""
    origin = await db(origins.of_request, project_id, asked)
    if base is not None and asked.task is not None:
        fit.check(base, asked.task, asked.tuning)
    asked = await require_files(db, settings, project_id, asked)
    job = Job(
        project_id=project_id,
        request=asked.model_dump(mode="json", exclude_unset=True),
        model=base.name if base else asked.model,
        origin=origin,
        task=asked.task,
        training_file_id=asked.training_file,
        validation_file_id=asked.validation_file,
        suffix=asked.suffix,
        seed=secrets.randbits(SEED_BITS) if asked.seed is None else asked.seed,
        labels=asked.metadata,
        priority=asked.priority,
        requires=requires(asked.resources),
        cloned_from=cloned_from,
    )
    job.validation_id = (await db(validations.for_job, job)).id
    return await db(jobs.create, job)
