"""What a job must be before it is written down: everything that can be told without its data."""

from __future__ import annotations

import asyncio
import secrets

from api.data_choices import check_task, require_files
from core.errors import InvalidRequest, LuthierError
from core.settings import Settings
from models import catalogue, jobs, origins, validations
from models.catalogue import BaseModel
from models.db import Database
from models.jobs import Job
from models.origins import FINE_TUNED
from models.spec import JobRequest, Resources

SEED_BITS = 31
BUILT_TUNINGS = ("full", "lora", "freeze")


def check(asked: JobRequest) -> None:
    """Refuse what is not there yet, rather than ignore it. Raises InvalidRequest."""
    check_task(asked.task, trainable=True)
    if asked.method is not None:
        kind = asked.method.type
        if kind != "supervised":
            raise InvalidRequest(
                f"Training by {kind!r} is not supported. Use `method.type` 'supervised'.",
                param="method.type",
                code="unsupported_method",
            )
        for other in ("dpo", "reinforcement"):
            if getattr(asked.method, other) is not None:
                raise InvalidRequest(
                    f"`method.{other}` does not go with `method.type` 'supervised'. Leave it out.",
                    param=f"method.{other}",
                    code="unsupported_method",
                )
    if asked.tuning not in BUILT_TUNINGS:
        raise InvalidRequest(
            f"Tuning by {asked.tuning!r} is not supported yet. Use 'full', 'lora' or 'freeze'.",
            param="tuning",
            code="unsupported_tuning",
        )
    if asked.integrations:
        raise InvalidRequest(
            "Integrations are not supported yet. Leave `integrations` out; the metrics can be read "
            "from GET /v1/fine_tuning/jobs/{id}/metrics.",
            param="integrations",
            code="unsupported_integration",
        )


def requires(resources: Resources | None) -> list[str]:
    """The capabilities that a worker must have. Raises InvalidRequest where none can."""
    device = resources.device if resources else None
    gpus = (resources.gpus if resources else None) or 0
    if gpus > 1:
        raise InvalidRequest(
            f"A job runs on one GPU at most for now; {gpus} were asked for.",
            param="resources.gpus",
            code="unsupported_resources",
        )
    if gpus and device == "cpu":
        raise InvalidRequest(
            "`resources` asks for a GPU and for the device 'cpu'. Leave one of them out.",
            param="resources.gpus",
        )
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


async def write(db: Database, project_id: str, asked: JobRequest, base: BaseModel | None) -> Job:
    """Check the files and write the job. Raises NotFound or InvalidRequest."""
    origin = await db(origins.of_request, project_id, asked)
    await require_files(db, project_id, asked)
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
    )
    job.validation_id = (await db(validations.for_job, job)).id
    return await db(jobs.create, job)
