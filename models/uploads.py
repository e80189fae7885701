"""Uploads in parts: a file that arrives in pieces, in parallel, over hours if need be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ForeignKey, Index, Select, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from core.errors import Conflict, InvalidRequest
from models import files
from models.base import Base, Created
from models.files import File
from models.scope import owned, require

PENDING, COMPLETED, CANCELLED, EXPIRED = "pending", "completed", "cancelled", "expired"

LIFETIME = timedelta(hours=24)
"""An upload not completed by then expires. OpenAI's is an hour; gigabytes over a slow line, with
a break in between, take longer."""


MOST_PARTS = 10_000
"""Of an upload, those that are left out on completion included."""


class Upload(Created, Base):
    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: ids.new("upload_"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    filename: Mapped[str]
    mime_type: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    """As announced; the parts must come to exactly this."""
    file_lifetime_seconds: Mapped[int | None]
    status: Mapped[str] = mapped_column(default=PENDING)
    expires_at: Mapped[datetime]
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))


class UploadPart(Created, Base):
    __tablename__ = "upload_parts"
    __table_args__ = (Index("ix_upload_parts_upload_id_sha256", "upload_id", "sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: ids.new("part_"))
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    storage_key: Mapped[str]


def part_key(project_id: str, upload_id: str, part_id: str) -> str:
    return f"uploads/{project_id}/{upload_id}/{part_id}"


def add(session: Session, upload: Upload) -> Upload:
    upload.expires_at = func.now() + LIFETIME
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def get(session: Session, project_id: str, upload_id: str) -> tuple[Upload, File | None]:
    """An upload with the file that it became. Raises NotFound."""
    upload = require(session.scalar(_one(project_id, upload_id)), "upload", upload_id)
    file = session.get(File, upload.file_id) if upload.file_id else None
    return upload, file


def pending(session: Session, project_id: str, upload_id: str) -> Upload:
    """An upload that still takes parts, its row locked. Raises NotFound or Conflict."""
    statement = _one(project_id, upload_id).with_for_update()
    upload = require(session.scalar(statement), "upload", upload_id)
    if upload.status == PENDING and upload.expires_at < _now(session):
        upload.status = EXPIRED
    if upload.status != PENDING:
        raise Conflict(
            f"The upload {upload_id} is {upload.status}. Begin a new one.",
            code=f"upload_{upload.status}",
        )
    return upload


def add_part(session: Session, project_id: str, part: UploadPart, *, is_retry: bool) -> UploadPart:
    """Record a part whose bytes are stored; a client's own retry gives the part it repeats.

    Raises NotFound or Conflict, and InvalidRequest where parts are too many or outgrow what was
    announced.
    """
    upload = pending(session, project_id, part.upload_id)
    of_upload = UploadPart.upload_id == upload.id
    if is_retry:
        equal = select(UploadPart).where(of_upload, UploadPart.sha256 == part.sha256)
        repeated = session.scalar(equal.order_by(UploadPart.id.desc()).limit(1))
        if repeated is not None:
            return repeated
    size = func.coalesce(func.sum(UploadPart.bytes), 0)
    count, so_far = session.execute(select(func.count(), size).where(of_upload)).one()
    if count >= MOST_PARTS:
        raise InvalidRequest(
            f"{upload.id} has {count} parts, and takes no more. Cancel it, and send the file in "
            "larger parts.",
            param="data",
            code="upload_too_large",
        )
    # Twice, since a part may be sent anew and the first one left out on completion.
    if so_far + part.bytes > 2 * upload.bytes:
        raise InvalidRequest(
            f"The parts of {upload.id} hold more than twice the {upload.bytes} bytes that were "
            "announced when it was created. Cancel it and begin a new one.",
            param="data",
            code="upload_too_large",
        )
    session.add(part)
    session.flush()
    return part


def chosen_parts(session: Session, upload: Upload, part_ids: Sequence[str]) -> list[UploadPart]:
    """The parts in the order given. Raises InvalidRequest unless they make up the whole."""
    found = {
        part.id: part
        for part in session.scalars(select(UploadPart).where(UploadPart.upload_id == upload.id))
    }
    for part_id in part_ids:
        if part_id not in found:
            raise InvalidRequest(
                f"The upload {upload.id} has no part {part_id!r}.",
                param="part_ids",
                code="unknown_part",
            )
    # One may be named twice: for a client's retry it stands for each part of the same content.
    parts = [found[part_id] for part_id in part_ids]
    size = sum(part.bytes for part in parts)
    if size != upload.bytes:
        raise InvalidRequest(
            f"The parts hold {size} bytes together; {upload.bytes} were announced. "
            "Add what is missing, or leave out what was sent twice, and complete it again.",
            param="part_ids",
            code="upload_size_mismatch",
        )
    return parts


def complete(session: Session, project_id: str, upload_id: str, file: File) -> str | None:
    """Turn a pending upload into its file; the key that is not needed, as `files.add_upload` has
    it. Raises Conflict when another call was first."""
    upload = pending(session, project_id, upload_id)
    seconds = upload.file_lifetime_seconds
    lifetime = timedelta(seconds=seconds) if seconds is not None else None
    spare = files.add_upload(session, file, lifetime)
    upload.status, upload.file_id = COMPLETED, file.id
    session.flush()
    return spare


def cancel(session: Session, project_id: str, upload_id: str) -> Upload:
    """Cancel a pending upload; one that is cancelled already stays so. Raises Conflict."""
    statement = _one(project_id, upload_id)
    upload = require(session.scalar(statement), "upload", upload_id)
    if upload.status != CANCELLED:
        upload = pending(session, project_id, upload_id)
        upload.status = CANCELLED
        session.flush()
    return upload


def expire(session: Session) -> None:
    """Mark what was not completed in time."""
    session.execute(
        update(Upload)
        .where(Upload.status == PENDING, Upload.expires_at < func.now())
        .values(status=EXPIRED)
    )


def spent_parts(session: Session, limit: int = 1000) -> list[UploadPart]:
    """Parts of uploads that take no more: their bytes are of no use any longer."""
    closed = select(Upload.id).where(Upload.status != PENDING)
    statement = select(UploadPart).where(UploadPart.upload_id.in_(closed)).limit(limit)
    return list(session.scalars(statement))


def forget_part(session: Session, part_id: str) -> None:
    session.execute(delete(UploadPart).where(UploadPart.id == part_id))


def _one(project_id: str, upload_id: str) -> Select[Upload]:
    return owned(Upload, project_id).where(Upload.id == upload_id)


def _now(session: Session) -> datetime:
    return session.scalars(select(func.now())).one()
