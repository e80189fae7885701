"""What cleaning may remove: bytes of rows that were deleted and that nothing unfinished needs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Select, exists, func, or_, select, update
from sqlalchemy.orm import Session

from models import files
from models.checkpoints import Checkpoint
from models.files import File
from models.jobs import Job
from models.registry import FineTunedModel
from models.state import TERMINAL
from models.validations import PENDING, Validation

Removable = type[FineTunedModel] | type[Checkpoint]

BATCH = 100


@dataclass(frozen=True)
class Doomed:
    table: Removable
    row_id: str
    keys: tuple[str, ...]


def files_due(session: Session) -> list[str]:
    """Deleted or expired files that nothing unfinished needs, a batch at a time."""
    return list(session.scalars(_gone_files().with_only_columns(File.id).limit(BATCH)))


def release_bytes(session: Session, file_id: str) -> str | None:
    """Note that a file needs its bytes no more; their key, if no other file shares them.

    The caller removes them once this is committed: by then nobody can come to share them. None
    as well where the file is needed after all, or somebody else was faster.
    """
    # Looked at once the row is ours: a job may have been written meanwhile that refers to it, which
    # the statement that waited for its lock would not see.
    session.execute(select(File.id).where(File.id == file_id).with_for_update())
    file = session.scalar(_gone_files().where(File.id == file_id))
    if file is None:
        return None
    files.lock_content(session, file)
    session.execute(update(File).where(File.id == file_id).values(removed_at=func.now()))
    sharing = select(File.id).where(File.storage_key == file.storage_key, File.removed_at.is_(None))
    return None if session.scalar(sharing.limit(1)) else file.storage_key


def _gone_files() -> Select[File]:
    gone = or_(File.deleted_at.is_not(None), File.expires_at < func.now())
    needed = or_(
        exists().where(
            Job.status.not_in(TERMINAL),
            or_(Job.training_file_id == File.id, Job.validation_file_id == File.id),
        ),
        exists().where(
            Validation.status.in_(PENDING),
            or_(Validation.training_file_id == File.id, Validation.validation_file_id == File.id),
        ),
    )
    return select(File).where(gone, File.removed_at.is_(None), ~needed)


def due(session: Session) -> list[Doomed]:
    """Deleted models and checkpoints whose bytes are still stored, a batch at a time."""
    _discard_unwanted(session)
    unfinished = Job.status.not_in(TERMINAL)
    doomed: list[Doomed] = []
    # A fine-tuned model and a checkpoint own their objects alone, except that a checkpoint's
    # model shares the checkpoint's: those go with the checkpoint.
    # Of a base model there is none: that is JSON's null, and NOT IN a list with one is never true.
    prefix = Job.origin["prefix"].astext
    origins = select(prefix).where(unfinished, prefix.is_not(None))
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


def _discard_unwanted(session: Session) -> None:
    """Checkpoints whose models were deleted go with them, once their jobs go on from none."""
    session.execute(
        update(Checkpoint)
        .where(
            Checkpoint.deleted_at.is_(None),
            Checkpoint.model_id.in_(
                select(FineTunedModel.id).where(
                    FineTunedModel.step.is_not(None), FineTunedModel.deleted_at.is_not(None)
                )
            ),
            exists().where(Job.id == Checkpoint.job_id, Job.status.in_(TERMINAL)),
        )
        .values(deleted_at=func.now())
        .execution_options(synchronize_session=False)
    )


def done(session: Session, item: Doomed) -> None:
    """Note that an item's bytes are gone."""
    table = item.table
    session.execute(update(table).where(table.id == item.row_id).values(removed_at=func.now()))
