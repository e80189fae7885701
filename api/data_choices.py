"""What can be told of a request's data before any of it is read: its task, its files' state."""

from __future__ import annotations

from core.errors import InvalidRequest
from ingest.tasks import all_formats
from models import files, validations
from models.data_spec import DataChoices
from models.db import Database
from models.files import TRAINING_PURPOSE, File
from models.tasks import TRAINABLE, suggest

FOR_TRAINING_ALONE = ("one_class",)
"""Problems that training data may not have, and validation data may."""


def check_task(task: str | None, *, trainable: bool) -> None:
    """Raises InvalidRequest for a task that is not known or, if it must be, not trainable yet."""
    known = [format.name for format in all_formats()]
    if task is None or task in (TRAINABLE if trainable else known):
        return
    can = f"Tasks that can be trained: {', '.join(TRAINABLE)}."
    if task in known:
        raise InvalidRequest(
            f"The task {task!r} cannot be trained yet. {can}",
            param="task",
            code="task_not_supported",
        )
    near = suggest(task)
    guess = f" Did you mean {near!r}?" if near else ""
    raise InvalidRequest(
        f"The task {task!r} is not known.{guess} {can}", param="task", code="unknown_task"
    )


async def require_files(db: Database, project_id: str, asked: DataChoices) -> None:
    """Raises NotFound, or InvalidRequest for a file that surely cannot be used as it is asked."""
    await _require(db, project_id, asked, asked.training_file, "training_file")
    if asked.validation_file is not None:
        await _require(db, project_id, asked, asked.validation_file, "validation_file")


async def _require(
    db: Database, project_id: str, asked: DataChoices, file_id: str, param: str
) -> None:
    file = await db(files.get, project_id, file_id, param=param, to_refer=True)
    if file.purpose != TRAINING_PURPOSE:
        raise InvalidRequest(
            f"The file {file_id} was uploaded with the purpose {file.purpose!r}. "
            f"Upload it with the purpose {TRAINING_PURPOSE!r} to train on it.",
            param=param,
            code="wrong_purpose",
        )
    if file.status == "error" and not asked.mends:
        await _refuse(db, file, param)


async def _refuse(db: Database, file: File, param: str) -> None:
    if param == "validation_file" and file.validation_id is not None:
        found = await db(validations.get, file.project_id, file.validation_id)
        if found.error is not None and found.error["code"] in FOR_TRAINING_ALONE:
            return
    raise InvalidRequest(
        f"The file {file.id} did not pass its check: {file.status_details} Upload a mended one; "
        "or, if it is to be read in another way, give `task`, `column_mapping` or `skip_invalid`.",
        param=param,
        code="file_with_errors",
    )
