"""What cleaning may remove: bytes of rows that were deleted and that nothing unfinished needs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import Session

from models.checkpoints import Checkpoint
from models.files import File
from models.jobs import Job
from models.registry import FineTunedModel
from models.state import TERMINAL
from models.validations import PENDING, Validation

Removable = type[File] | type[FineTunedModel] | type[Checkpoint]

BATCH = 100


@dataclass(frozen=True)
class Doomed:
    table: Removable
    row_id: str
    keys: tuple[str, ...]


def due(session: Session) -> list[Doomed]:
    """Deleted or expired rows whose bytes are still stored, a batch at a time."""
    unfinished = Job.status.not_in(TERMINAL)
    needed = or_(
        exists().where(
            unfinished, or_(Job.training_file_id == File.id, Job.validation_file_id == File.id)
        ),
        exists().where(
            Validation.status.in_(PENDING),
            or_(Validation.training_file_id == File.id, Validation.validation_file_id == File.id),
        ),
    )
    gone = or_(File.deleted_at.is_not(None), File.expires_at < func.now())
    doomed = [
        Doomed(File, file.id, (file.storage_key,))
        for file in session.scalars(
            select(File).where(gone, File.removed_at.is_(None), ~needed).limit(BATCH)
        )
    ]
    # A fine-tuned model and a checkpoint own their objects alone, except that a checkpoint's
    # model shares the checkpoint's: those go with the checkpoint.
    origins = select(Job.origin["prefix"].astext).where(unfinished, Job.origin.is_not(None))
    models = select(FineTunedModel).where(
        FineTunedModel.deleted_at.is_not(None),
        FineTunedModel.removed_at.is_(None),
        FineTunedModel.step.is_(None),
        FineTunedModel.prefix.not_in(origins),
    )
    checkpoints = select(Checkpoint).where(
        Checkpoint.deleted_at.is_not(None),
        Checkpoint.removed_at.is_(None),
        Checkpoint.prefix.not_in(origins),
    )
    owners: list[FineTunedModel | Checkpoint] = [*session.scalars(models.limit(BATCH))]
    owners += session.scalars(checkpoints.limit(BATCH))
    for owner in owners:
        keys = tuple(f"{owner.prefix}/{file['path']}" for file in owner.files)
        doomed.append(Doomed(type(owner), owner.id, keys))
    return doomed


def done(session: Session, item: Doomed) -> None:
    """Note that an item's bytes are gone."""
    table = item.table
    session.execute(update(table).where(table.id == item.row_id).values(removed_at=func.now()))
