"""Validations: data files checked row by row, before a job or for one.

A job in `validating_files` waits for the validation that it names; jobs on equal contents read in
the same way share one. Each upload for fine-tuning starts one by itself (`automatic`), which gives
the file its status. Who works on one is in `models/validation_leases.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Index, delete, func, or_, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models.base import Base, Created, Json
from models.data_spec import DataChoices, ValidationRequest
from models.files import TRAINING_PURPOSE, File
from models.jobs import Job
from models.scope import Page, owned, page, require
from models.spec import JobRequest
from models.state import Desired, Status


class ValidationStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


OF_THE_MACHINE = ("poison", "unavailable")
"""Codes of failures that say nothing of the files."""
PENDING = (ValidationStatus.QUEUED, ValidationStatus.RUNNING)

REMEMBERED = timedelta(days=90)
"""How long a report is kept that is neither a job's nor that of a file which is still there."""


class Validation(Created, Base):
    __tablename__ = "validations"
    __table_args__ = (
        Index("ix_validations_project_id_id", "project_id", "id"),
        Index("ix_validations_project_id_digest", "project_id", "digest"),
        # What control workers look for: few rows at any time, however long the history.
        Index(
            "ix_validations_pending",
            "automatic",
            "id",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=ids.validation)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str] = mapped_column(default=ValidationStatus.QUEUED)
    automatic: Mapped[bool] = mapped_column(default=False)

    # The lease, as a job's.
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    worker_id: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(default=0)
    """Claims that have not ended."""
    failures: Mapped[int] = mapped_column(default=0)
    """Claims that broke for no fault of the file's."""
    not_before: Mapped[datetime | None]

    # What was asked for.
    request: Mapped[Json]
    training_file_id: Mapped[str] = mapped_column(ForeignKey("files.id"), index=True)
    validation_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"), index=True)
    asked_task: Mapped[str | None]
    digest: Mapped[str | None]
    """`DataChoices.digest` of what was asked. None while a file's content is not known."""

    # What was found.
    task: Mapped[str | None]
    training: Mapped[Json | None]
    """`{rows, labels, sha256, shape, report}` of the prepared training data."""
    validation: Mapped[Json | None]
    train_key: Mapped[str | None]
    valid_key: Mapped[str | None]
    data_until: Mapped[datetime | None]
    """The prepared data is kept until then for jobs to come. A job's own is kept while it runs."""
    error: Mapped[Json | None]
    """`{code, message, param, details}`"""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    def asked(self) -> ValidationRequest:
        return ValidationRequest.model_validate(self.request)


def create(
    session: Session, project_id: str, asked: ValidationRequest, *, automatic: bool = False
) -> Validation:
    """A new validation, queued. The caller has checked that the files are the project's."""
    validation = Validation(
        project_id=project_id,
        automatic=automatic,
        request=asked.model_dump(mode="json", exclude_unset=True),
        training_file_id=asked.training_file,
        validation_file_id=asked.validation_file,
        asked_task=asked.task,
        digest=_digest(session, project_id, asked),
    )
    session.add(validation)
    session.flush()
    # A file that was not uploaded has had no check: this one gives it its status.
    session.execute(
        update(File)
        .where(
            File.id.in_([asked.training_file, asked.validation_file]),
            File.status == "uploaded",
            File.validation_id.is_(None),
        )
        .values(validation_id=validation.id)
    )
    return validation


def know_content(session: Session, validation: Validation) -> None:
    """Once a source's bytes are there, what is found in them may stand for other jobs' too."""
    validation.digest = _digest(session, validation.project_id, validation.asked())


def for_job(session: Session, job: Job) -> Validation:
    """The validation that a job is to wait for: one of equal data if there is one, else its own."""
    return _equal(session, job.project_id, _asked_by(job)) or create_for_job(session, job)


def of_equal_data(session: Session, job: Job) -> Validation | None:
    """What is known already of the data of such a job: a validation that it would share, or one
    that found the files bad."""
    asked = _asked_by(job)
    digest = _digest(session, job.project_id, asked)
    # Of contents that are not known yet no more can be said than of the very same files.
    of_files = (Validation.training_file_id == asked.training_file) & (
        Validation.validation_file_id.is_not_distinct_from(asked.validation_file)
    )
    statement = select(Validation).where(
        Validation.project_id == job.project_id,
        of_files if digest is None else Validation.digest == digest,
        Validation.status == ValidationStatus.FAILED,
        Validation.asked_task.is_not_distinct_from(asked.task),
        Validation.error["code"].as_string().not_in(OF_THE_MACHINE),
    )
    equal = _equal(session, job.project_id, asked)
    if equal is not None and equal.status == ValidationStatus.SUCCEEDED:
        return equal
    return session.scalar(statement.order_by(Validation.id.desc()).limit(1)) or equal


def of_equal_data_or_new(session: Session, job: Job) -> Validation:
    return of_equal_data(session, job) or create_for_job(session, job)


def answers(job: Job, validation: Validation) -> bool:
    """Whether this validation, having ended, is about what the job is. It may have been begun
    before the job, for the same files and a task that was yet to be found."""
    if validation.status == ValidationStatus.FAILED:
        return validation.asked_task == job.sure_task
    return job.sure_task in (None, validation.task)


def create_for_job(session: Session, job: Job) -> Validation:
    return create(session, job.project_id, _asked_by(job))


def _asked_by(job: Job) -> ValidationRequest:
    choices = JobRequest.model_validate(job.request)
    fields = choices.model_dump(include=set(DataChoices.model_fields), exclude_unset=True)
    fields |= {"training_file": job.training_file_id, "task": job.sure_task}
    if job.validation_file_id is not None:
        fields["validation_file"] = job.validation_file_id
    return ValidationRequest(**fields)


def adopt(session: Session) -> None:
    """Give those jobs a validation that a process of the release before this table has made."""
    orphans = select(Job).where(Job.status == Status.VALIDATING, Job.validation_id.is_(None))
    for job in session.scalars(orphans.limit(100).with_for_update(skip_locked=True)):
        job.validation_id = for_job(session, job).id


def for_file(session: Session, file: File) -> Validation | None:
    """Have a new fine-tuning file checked by itself, unless an equal one was: then None."""
    if file.purpose != TRAINING_PURPOSE:
        return None
    asked = ValidationRequest(training_file=file.id)
    found = _equal(session, file.project_id, asked)
    if found is not None:
        file.validation_id = found.id
        return None
    file.status = "uploaded"
    validation = create(session, file.project_id, asked, automatic=True)
    file.validation_id = validation.id
    session.flush()
    return validation


def _equal(session: Session, project_id: str, asked: ValidationRequest) -> Validation | None:
    """One that has succeeded on equal contents, its data still there; or one of the very same
    files that is pending, even if it has yet to find the task: a job that proves to be for
    another goes on to one of its own (`worker/admission.py`)."""
    digest = _digest(session, project_id, asked)
    alike = or_(
        Validation.asked_task.is_not_distinct_from(asked.task), Validation.task == asked.task
    )
    succeeded = Validation.status == ValidationStatus.SUCCEEDED
    statement = select(Validation).where(
        Validation.project_id == project_id,
        Validation.digest == digest,
        or_(
            succeeded & alike & (Validation.data_until > func.now()),
            Validation.status.in_(PENDING)
            & (Validation.training_file_id == asked.training_file)
            & Validation.validation_file_id.is_not_distinct_from(asked.validation_file)
            & or_(alike, Validation.asked_task.is_(None)),
        ),
    )
    return session.scalar(statement.order_by(succeeded.desc(), Validation.id.desc()).limit(1))


def _digest(session: Session, project_id: str, asked: DataChoices) -> str | None:
    wanted = {asked.training_file, asked.validation_file} - {None}
    statement = select(File.id, File.sha256).where(
        File.project_id == project_id, File.id.in_(wanted)
    )
    known = {file_id: sha256 for file_id, sha256 in session.execute(statement) if sha256}
    if known.keys() != wanted:
        return None
    second = known[asked.validation_file] if asked.validation_file is not None else None
    return asked.digest(known[asked.training_file], second)


def get(session: Session, project_id: str, validation_id: str) -> Validation:
    """One of the project's validations. Raises NotFound."""
    statement = owned(Validation, project_id).where(Validation.id == validation_id)
    return require(session.scalar(statement), "validation", validation_id)


def listing(
    session: Session, project_id: str, *, after: str | None, limit: int
) -> Page[Validation]:
    """Newest first."""
    statement = owned(Validation, project_id)
    return page(session, statement, Validation.id, after=after, limit=limit)


def has_data(session: Session, validation_id: str) -> bool:
    """Whether what it prepared is still kept. The caller holds `orphans.lock_datasets`."""
    statement = select(Validation.id).where(
        Validation.id == validation_id, Validation.data_until > func.now()
    )
    return session.scalar(statement) is not None


def release(session: Session, file_id: str) -> None:
    """A file was deleted: what was prepared of it is kept for jobs no longer."""
    session.execute(
        update(Validation)
        .where(
            or_(Validation.training_file_id == file_id, Validation.validation_file_id == file_id),
            Validation.data_until > func.now(),
        )
        .values(data_until=func.now())
    )


def waiting_jobs(session: Session, validation_id: str) -> list[str]:
    """Jobs that this validation, having ended, leaves to be queued or to fail."""
    statement = select(Job.id).where(
        Job.status == Status.VALIDATING,
        Job.desired == Desired.RUN,
        Job.validation_id == validation_id,
        select(Validation.id)
        .where(Validation.id == validation_id, Validation.status.not_in(PENDING))
        .exists(),
    )
    return list(session.scalars(statement.order_by(Job.id)))


def forget(session: Session) -> None:
    """Drop old reports that nobody will ask for; cleaning calls this."""
    told = select(File.id).where(File.validation_id == Validation.id, File.deleted_at.is_(None))
    session.execute(
        delete(Validation).where(
            Validation.finished_at < func.now() - REMEMBERED,
            or_(Validation.data_until.is_(None), Validation.data_until < func.now()),
            ~select(Job.id).where(Job.validation_id == Validation.id).exists(),
            ~told.exists(),
        )
    )
