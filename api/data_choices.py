"""What can be told of a request's data before any of it is read: its task, its files' state.

Data that is named rather than uploaded becomes a file here, whose bytes are brought later.
"""

from __future__ import annotations

from typing import TypeVar

from core.errors import InvalidRequest
from core.settings import Settings
from ingest.tasks import all_formats
from models import files, sources, validations
from models.data_spec import DataChoices
from models.db import Database
from models.files import TRAINING_PURPOSE, File
from models.tasks import TRAINABLE, suggest

Choices = TypeVar("Choices", bound=DataChoices)

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


async def require_files(
    db: Database, settings: Settings, project_id: str, asked: Choices, *, anew: bool = True
) -> Choices:
    """The choices with each source as the file that it has become: brought `anew`, or as it was
    brought before, if it was.

    Raises NotFound, or InvalidRequest for a file that surely cannot be used as it is asked.
    """
    named = {"training_file": asked.training_file, "validation_file": asked.validation_file}
    found: dict[str, str] = {}
    for param, name in named.items():
        if name is None:
            continue
        if sources.is_source(name):
            source = sources.parse(name, param)
            sources.require_allowed(settings, source, param)
            file = None if anew else await db(files.of_source, project_id, name)
            if file is None:
                file = await db(files.add_source, project_id, name, source.filename)
            found[param] = file.id
        else:
            await _require(db, project_id, asked, name, param)
    return asked.model_copy(update=found)


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
