"""Files, as OpenAI's `FileObject`."""

from __future__ import annotations

from typing import Literal

from api.shapes.base import Identified, Shape
from core.clock import unix
from models.files import File


class FileObject(Identified):
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None
    sha256: str
    """Ours: of the content, as computed while it came. Empty until it has come from its source."""
    source: str | None
    """Ours: where it comes from if it was not uploaded."""
    validation: str | None
    """Ours: the check that gives a fine-tuning file its status."""


class FileDeleted(Shape):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_object(row: File) -> FileObject:
    return FileObject(
        id=row.id,
        bytes=row.bytes,
        created_at=unix(row.created_at),
        expires_at=unix(row.expires_at) if row.expires_at else None,
        filename=row.filename,
        purpose=row.purpose,
        status=row.status,
        status_details=row.status_details,
        sha256=row.sha256,
        validation=row.validation_id,
        source=row.source,
    )
