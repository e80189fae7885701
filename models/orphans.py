"""Which stored objects nothing refers to any more, or never did: what cleaning may take.

They come from uploads that were cut off, from attempts that were lost, and from data sets whose
validations and jobs have ended. A caller asks only about objects that are older than any write
under way.
"""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from models.checkpoints import Checkpoint
from models.files import File
from models.jobs import Job
from models.registry import FineTunedModel
from models.state import TERMINAL, Status
from models.uploads import UploadPart
from models.validations import PENDING, Validation

PREFIXES = ("files", "uploads", "datasets", "jobs")
"""Where the service keeps objects."""

_OF_ATTEMPT = re.compile(r"(?P<prefix>jobs/(?P<job>[^/]+)/attempts/(?P<fence>\d+))/.+")
_DATASETS_LOCK = 5_884_267_302
"""An advisory lock's number: nobody refers to a data set while it is being taken for an orphan."""


def now(session: Session) -> datetime:
    """The database's clock, which is nearer to the store's than a worker's may be."""
    return session.scalars(select(func.now())).one()


def among(session: Session, keys: list[str]) -> list[str]:
    """Those of the keys that nothing refers to. They stay so until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(_DATASETS_LOCK)))
    referred = {
        *_files(session, keys),
        *session.scalars(select(UploadPart.storage_key).where(UploadPart.storage_key.in_(keys))),
        *_datasets(session, keys),
        *_of_attempts(session, keys),
    }
    return [key for key in keys if key not in referred]


def lock_datasets(session: Session) -> None:
    """To be held while a job's reference to a data set is written, before the data set itself:
    an equal one of ended jobs may be on its way out."""
    session.execute(select(func.pg_advisory_xact_lock_shared(_DATASETS_LOCK)))


def _files(session: Session, keys: list[str]) -> set[str]:
    statement = select(File.storage_key).where(
        File.storage_key.in_(keys), File.removed_at.is_(None)
    )
    return set(session.scalars(statement))


def _datasets(session: Session, keys: list[str]) -> set[str]:
    """Those of unfinished jobs, and those that validations keep for jobs to come."""
    kept = or_(Validation.status.in_(PENDING), Validation.data_until > func.now())
    referred: set[str] = set()
    for table, condition in ((Job, Job.status.not_in(TERMINAL)), (Validation, kept)):
        statement = select(table.train_key, table.valid_key).where(
            condition, or_(table.train_key.in_(keys), table.valid_key.in_(keys))
        )
        referred |= {key for row in session.execute(statement) for key in row if key is not None}
    return referred


def _of_attempts(session: Session, keys: list[str]) -> set[str]:
    """Those of published checkpoints and models, and all of attempts under way."""
    found = {key: match for key in keys if (match := _OF_ATTEMPT.fullmatch(key))}
    job_ids = {match["job"] for match in found.values()}
    published: set[str] = set()
    for table in (Checkpoint, FineTunedModel):
        statement = select(table.prefix, table.files).where(
            table.job_id.in_(job_ids), table.removed_at.is_(None)
        )
        for prefix, files in session.execute(statement):
            published |= {f"{prefix}/{file['path']}" for file in files}
    running = select(Job.id, Job.fence).where(Job.id.in_(job_ids), Job.status == Status.RUNNING)
    under_way = {f"jobs/{job_id}/attempts/{fence}" for job_id, fence in session.execute(running)}
    return {key for key, match in found.items() if key in published or match["prefix"] in under_way}
