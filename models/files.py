"""Uploaded and result files: what a user sees of them, and where their bytes lie.

Uploads of equal content in one project share one stored object, which goes with the last of them.
No project's files are ever compared with another's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ForeignKey, Index, Select, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models import locks
from models.base import Base, Created
from models.scope import Page, owned, page, require

TRAINING_PURPOSE = "fine-tune"
RESULTS_PURPOSE = "fine-tune-results"
UPLOAD_PURPOSES = (TRAINING_PURPOSE, "assistants", "batch", "evals", "user_data", "vision")


class File(Created, Base):
    __tablename__ = "files"
    __table_args__ = (Index("ix_files_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=ids.file)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(index=True)
    """Empty while the bytes are yet to be brought from `source`."""
    storage_key: Mapped[str]
    source: Mapped[str | None]
    """Where its data comes from if it was not uploaded (`models/sources.py`)."""
    status: Mapped[str] = mapped_column(default="processed")
    status_details: Mapped[str | None]
    validation_id: Mapped[str | None]
    """Its own check after the upload, in `models/validations.py`, which refers to this table."""
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    deleted_at: Mapped[datetime | None]
    """Set by DELETE and on expiry. The bytes go once no unfinished job needs them."""
    removed_at: Mapped[datetime | None]


def storage_key(project_id: str, file_id: str) -> str:
    return f"files/{project_id}/{file_id}"


def add(session: Session, file: File) -> File:
    session.add(file)
    session.flush()
    return file


def add_upload(session: Session, file: File, lifetime: timedelta | None) -> str | None:
    """Write the row of a new upload, whose bytes are stored. The key of those bytes if an equal
    file's stand for them from now on: the caller removes them once this is committed."""
    spare = _share(session, file)
    if lifetime is not None:
        file.expires_at = func.now() + lifetime
    add(session, file)
    session.refresh(file)
    return spare


def add_source(session: Session, project_id: str, source: str, filename: str) -> File:
    """Write the row of a file whose bytes a control worker is to bring."""
    file = File(
        id=ids.file(),
        project_id=project_id,
        filename=filename,
        purpose=TRAINING_PURPOSE,
        bytes=0,
        sha256="",
        source=source,
        status="uploaded",
    )
    file.storage_key = storage_key(project_id, file.id)
    return add(session, file)


def of_source(session: Session, project_id: str, source: str) -> File | None:
    """The newest file that came from there, or is to come, unless it proved to be bad."""
    statement = _live(project_id).where(File.source == source, File.status != "error")
    return session.scalar(statement.order_by(File.id.desc()).limit(1))


def brought(session: Session, file_id: str, key: str, size: int, sha256: str) -> str | None:
    """Note where a source's bytes lie, and what they proved to be; the key that is not needed, as
    `add_upload` has it."""
    file = session.get_one(File, file_id)
    file.storage_key, file.bytes, file.sha256 = key, size, sha256
    spare = _share(session, file)
    session.flush()
    return spare


def _share(session: Session, file: File) -> str | None:
    lock_content(session, file)
    with session.no_autoflush:
        held = session.scalar(
            select(File.storage_key)
            .where(
                File.project_id == file.project_id,
                File.sha256 == file.sha256,
                File.id != file.id,
                File.removed_at.is_(None),
            )
            .limit(1)
        )
    if held is None or held == file.storage_key:
        return None
    spare, file.storage_key = file.storage_key, held
    return spare


def lock_content(session: Session, file: File) -> None:
    """Until the transaction ends, no equal file of the project is written or given up."""
    locks.hold(session, "content", file.project_id, file.sha256)


def get(
    session: Session,
    project_id: str,
    file_id: str,
    *,
    param: str | None = None,
    to_refer: bool = False,
) -> File:
    """One live file of the project; `to_refer` keeps it from being deleted until what refers to
    it is written. Raises NotFound."""
    statement = _live(project_id).where(File.id == file_id)
    if to_refer:
        statement = statement.with_for_update(read=True)
    return require(session.scalar(statement), "file", file_id, param)


def listing(
    session: Session,
    project_id: str,
    *,
    purpose: str | None,
    after: str | None,
    limit: int,
    ascending: bool,
) -> Page[File]:
    statement = _live(project_id)
    if purpose is not None:
        statement = statement.where(File.purpose == purpose)
    return page(session, statement, File.id, after=after, limit=limit, ascending=ascending)


def delete(session: Session, project_id: str, file_id: str) -> None:
    """Hide the file from every read. Raises NotFound."""
    row = get(session, project_id, file_id)
    session.execute(update(File).where(File.id == row.id).values(deleted_at=func.now()))


def _live(project_id: str) -> Select[File]:
    return owned(File, project_id).where(
        or_(File.expires_at.is_(None), File.expires_at > func.now())
    )


def hashes(session: Session, file_ids: Iterable[str | None]) -> dict[str, str]:
    """SHA-256 by id, deleted files' too; without those whose bytes have yet to come."""
    statement = select(File.id, File.sha256).where(File.id.in_(file_ids), File.sha256 != "")
    return {row.id: row.sha256 for row in session.execute(statement)}


def raw(session: Session, file_id: str) -> File | None:
    """A file by id for the service itself, deleted or not: a job may outlive its file."""
    return session.scalar(select(File).where(File.id == file_id))
