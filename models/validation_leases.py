"""Who checks a validation's files, and until when: as with jobs (`models/leases.py`), by a fence
that rises with each claim and a lease by the database's clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from models.base import Json, storable
from models.files import File
from models.jobs import Job
from models.leases import LONGEST_BACKOFF_SECONDS, LeaseLost, Wish
from models.state import Desired, Status
from models.validations import PENDING, Validation, ValidationStatus

GONE_DATA_SECONDS = 3600.0
"""How long data prepared of a file that was deleted meanwhile is kept for the jobs that wait."""


def _free() -> ColumnElement[bool]:
    return (
        Validation.status.in_(PENDING)
        & or_(Validation.lease_expires_at.is_(None), Validation.lease_expires_at < func.now())
        & or_(Validation.not_before.is_(None), Validation.not_before <= func.now())
    )


def claim(
    session: Session, worker_id: str, lease_seconds: float, validation_id: str
) -> Validation | None:
    """Take a validation that nobody holds; None if somebody does, or it has ended.

    The claim counts as a try until it has ended, so that a file which kills whoever reads it is
    not read for ever.
    """
    statement = select(Validation).where(_free(), Validation.id == validation_id)
    found = session.scalar(statement.with_for_update(skip_locked=True))
    if found is not None:
        found.status = ValidationStatus.RUNNING
        found.fence += 1
        found.tries += 1
        found.worker_id = worker_id
        session.execute(
            update(Validation)
            .where(Validation.id == found.id)
            .values(
                lease_expires_at=func.now() + timedelta(seconds=lease_seconds),
                started_at=func.coalesce(Validation.started_at, func.now()),
            )
        )
        session.flush()
    return found


def _held(validation_id: str, fence: int) -> ColumnElement[bool]:
    return (
        (Validation.id == validation_id)
        & (Validation.fence == fence)
        & (Validation.status == ValidationStatus.RUNNING)
    )


def hold(session: Session, validation_id: str, fence: int) -> Validation:
    """Lock it for a write of its holder. Raises LeaseLost if it is the holder no more."""
    found = session.scalar(
        select(Validation)
        .where(_held(validation_id, fence))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise LeaseLost(f"The lease of {validation_id} at fence {fence} is lost.")
    return found


def renew(session: Session, validation_id: str, fence: int, lease_seconds: float) -> Wish:
    """The heartbeat. Raises LeaseLost."""
    renewed = session.scalar(
        update(Validation)
        .where(_held(validation_id, fence))
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_seconds))
        .returning(Validation.id)
    )
    if renewed is None:
        raise LeaseLost(f"The lease of {validation_id} at fence {fence} is lost.")
    return Wish(Desired.RUN, "now")


def is_over(session: Session, validation_id: str, fence: int) -> bool:
    return session.scalar(select(Validation.id).where(_held(validation_id, fence))) is None


def succeed(
    session: Session, validation_id: str, fence: int, *, keep_seconds: float, **found: Any
) -> None:
    """The holder's last write: what was found, the data kept for jobs to come. Raises LeaseLost."""
    held = hold(session, validation_id, fence)
    wanted = (held.training_file_id, held.validation_file_id)
    # Locked: who deletes one at this moment either is seen here, or sees what is written here.
    files = select(File).where(File.id.in_(wanted)).with_for_update(read=True)
    gone = any(file.deleted_at is not None for file in session.scalars(files))
    kept = timedelta(seconds=GONE_DATA_SECONDS if gone else keep_seconds)
    found["data_until"] = func.now() + kept
    _end(session, held, ValidationStatus.SUCCEEDED, "processed", None, **found)


def fail(
    session: Session, validation_id: str, fence: int, error: Json, *, readable: bool = False
) -> None:
    """End it by the files' own fault; `readable` where no more is amiss than that the task is not
    known. Raises LeaseLost."""
    held = hold(session, validation_id, fence)
    status, details = ("processed", None) if readable else ("error", error["message"])
    _end(session, held, ValidationStatus.FAILED, status, details, error=error)


def _end(
    session: Session,
    held: Validation,
    status: ValidationStatus,
    file_status: str,
    file_details: str | None,
    **values: Any,
) -> None:
    session.execute(
        update(Validation)
        .where(Validation.id == held.id)
        .values(
            status=status,
            worker_id=None,
            lease_expires_at=None,
            finished_at=func.now(),
            **{name: storable(value) for name, value in values.items()},
        )
    )
    session.execute(
        update(File)
        .where(File.validation_id == held.id, File.status == "uploaded")
        .values(status=file_status, status_details=storable(file_details))
    )


def drop(session: Session, validation_id: str, fence: int) -> None:
    """End a claim that broke for no fault of the files'; another one follows later."""
    held = hold(session, validation_id, fence)
    wait = min(LONGEST_BACKOFF_SECONDS, 2.0 ** min(held.failures, 10))
    session.execute(
        update(Validation)
        .where(Validation.id == held.id)
        .values(
            status=ValidationStatus.QUEUED,
            worker_id=None,
            lease_expires_at=None,
            tries=Validation.tries - 1,
            failures=Validation.failures + 1,
            not_before=func.now() + timedelta(seconds=wait),
        )
    )


def give_back(session: Session, validation_id: str, fence: int) -> None:
    """Hand a claim back in order, as on a deploy: it is claimable at once, at no cost."""
    hold(session, validation_id, fence)
    session.execute(
        update(Validation)
        .where(Validation.id == validation_id)
        .values(
            status=ValidationStatus.QUEUED,
            worker_id=None,
            lease_expires_at=None,
            tries=Validation.tries - 1,
        )
    )


def waiting(session: Session, limit: int = 100) -> list[str]:
    """Validations to ring for: those that could be claimed, then those that have ended and whose
    jobs still wait. What a user asked for goes before what uploads caused."""
    free = select(Validation.id).where(_free())
    ended = (
        select(Job.validation_id)
        .join(Validation, Validation.id == Job.validation_id)
        .where(
            Job.status == Status.VALIDATING,
            Job.desired == Desired.RUN,
            or_(Job.lease_expires_at.is_(None), Job.lease_expires_at < func.now()),
            or_(Job.not_before.is_(None), Job.not_before <= func.now()),
            Validation.status.not_in(PENDING),
        )
        .distinct()
    )
    first = session.scalars(free.order_by(Validation.automatic, Validation.id).limit(limit))
    return [*first, *filter(None, session.scalars(ended.limit(limit)))]
