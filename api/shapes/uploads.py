"""Uploads in parts, as OpenAI's `Upload` and `UploadPart`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.shapes.base import Shape
from api.shapes.files import FileObject, file_object
from core.clock import unix
from models.data_spec import Strict
from models.files import File
from models.uploads import Upload, UploadPart


class ExpiresAfter(Strict):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class CreateUpload(Strict):
    """The body of POST /v1/uploads."""

    bytes: Annotated[int, Field(ge=1)]
    filename: Annotated[
        str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f\x7f]+$")
    ]
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    purpose: Literal["fine-tune", "assistants", "batch", "evals", "user_data", "vision"]
    expires_after: ExpiresAfter | None = None


class CompleteUpload(Strict):
    """The body of POST /v1/uploads/{upload_id}/complete."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


class UploadObject(Shape):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None


class UploadPartObject(Shape):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str


def upload_object(row: Upload, file: File | None = None) -> UploadObject:
    return UploadObject(
        id=row.id,
        bytes=row.bytes,
        created_at=unix(row.created_at),
        expires_at=unix(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
        status=row.status,
        file=file_object(file) if file else None,
    )


def part_object(row: UploadPart) -> UploadPartObject:
    return UploadPartObject(
        id=row.id,
        created_at=unix(row.created_at),
        upload_id=row.upload_id,
        bytes=row.bytes,
        sha256=row.sha256,
    )
