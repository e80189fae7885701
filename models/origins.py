"""Where a run starts from when not from a base model: a checkpoint or a fine-tuned model.

The job keeps what it needs of it (`Job.origin`), so that the run can begin again however long it
waits and whatever has been deleted meanwhile: cleaning leaves those bytes alone until it has ended.
"""

from __future__ import annotations

from typing import Any, TypedDict

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import InvalidRequest
from models.checkpoints import Checkpoint
from models.jobs import Job
from models.registry import FineTunedModel
from models.scope import owned, require
from models.spec import JobRequest

FINE_TUNED = "ft:"
CHECKPOINT = "ftckpt-"


class Origin(TypedDict):
    name: str
    """As the user gave it."""
    base_model: str
    """From which it was once fine-tuned."""
    task: str
    prefix: str
    """Its files lie in storage under `prefix/path`."""
    files: list[Any]
    """`[{path, bytes, sha256}]`, without a checkpoint's training state."""


def of_request(session: Session, project_id: str, asked: JobRequest) -> Origin | None:
    """What a job is to start from; None for a base model.

    Raises NotFound for what the project does not have, InvalidRequest where it does not go with
    `model` or `task`.
    """
    of_model = asked.model if asked.model.startswith(FINE_TUNED) else None
    name = asked.from_checkpoint or of_model
    if name is None:
        return None
    param = "from_checkpoint" if asked.from_checkpoint else "model"
    row = _find(session, project_id, name, param)
    if param == "from_checkpoint" and asked.model not in (row.id, row.base_model):
        raise InvalidRequest(
            f"{name} was trained from {row.base_model!r}, not from {asked.model!r}. "
            f"Give `model` as {row.base_model!r}.",
            param="model",
            code="origin_mismatch",
        )
    if asked.task not in (None, row.task):
        raise InvalidRequest(
            f"{name} was trained for {row.task}, not for {asked.task}. "
            "Leave `task` out, or start from a base model.",
            param="task",
            code="origin_mismatch",
        )
    return Origin(
        name=name,
        base_model=row.base_model,
        task=row.task,
        prefix=row.prefix,
        files=row.files,
    )


def _find(session: Session, project_id: str, name: str, param: str) -> FineTunedModel:
    """The model, locked against being deleted until the job that starts from it is written."""
    model_id: str | None = name
    if name.startswith(CHECKPOINT):
        model_id = session.scalar(
            select(Checkpoint.model_id)
            .join(Job, Job.id == Checkpoint.job_id)
            .where(
                Checkpoint.id == name,
                Checkpoint.deleted_at.is_(None),
                Job.project_id == project_id,
            )
        )
    statement = owned(FineTunedModel, project_id).where(FineTunedModel.id == model_id)
    found = session.scalar(statement.with_for_update(read=True))
    return require(found, "checkpoint or fine-tuned model", name, param)
