"""The form of POST /v1/files: its fields checked as they come, its file streamed into storage."""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from api.invalid import not_allowed, unknown
from api.multipart import OVERHEAD_BYTES, Part, parts
from core.errors import InvalidRequest
from core.storage import ObjectStore, Written
from models.files import UPLOAD_PURPOSES, File

FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
SHORTEST_LIFE, LONGEST_LIFE = timedelta(hours=1), timedelta(days=30)
LONGEST_NAME = 255

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": list(UPLOAD_PURPOSES)},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": int(SHORTEST_LIFE.total_seconds()),
            "maximum": int(LONGEST_LIFE.total_seconds()),
        },
    },
}


class Uploaded(BaseModel):
    """What makes one upload equal to another."""

    purpose: str
    filename: str
    sha256: str


async def receive(
    request: Request, store: ObjectStore, file: File, max_bytes: int
) -> timedelta | None:
    """Read the form: the file's bytes to `file.storage_key`, the rest into `file`'s columns. How
    long the file is to live, where the form says so.

    Raises InvalidRequest or TooLarge. The caller removes what was stored when this raises.
    """
    fields: dict[str, str] = {}
    written: Written | None = None
    async for part in parts(request, max_bytes + OVERHEAD_BYTES):
        if part.name == "file":
            _require_first(part.name, written is None)
            file.filename = _file_name(part)
            written = await store.write_stream(file.storage_key, part.chunks, limit=max_bytes)
        else:
            _require_known(part.name)
            _require_first(part.name, part.name not in fields)
            fields[part.name] = _checked(part.name, await part.text())
    for name, there in (("purpose", "purpose" in fields), ("file", written is not None)):
        if not there:
            raise InvalidRequest(
                f"The form lacks `{name}`. With curl: -F purpose=fine-tune -F file=@PATH",
                param=name,
                code="missing_required_parameter",
            )
    assert written is not None
    if written.bytes == 0:
        raise InvalidRequest(
            f"{file.filename!r} is empty. Upload a file with data in it.",
            param="file",
            code="empty_file",
        )
    file.purpose, file.bytes, file.sha256 = fields["purpose"], written.bytes, written.sha256
    if "expires_after[seconds]" in fields:
        return timedelta(seconds=int(fields["expires_after[seconds]"]))
    return None


def _require_first(name: str, is_first: bool) -> None:
    if not is_first:
        raise InvalidRequest(f"The form has `{name}` twice. Send it once.", param=name)


def _require_known(name: str) -> None:
    if name not in FIELDS:
        raise unknown(name, ["file", *FIELDS])


def _checked(name: str, value: str) -> str:
    """A field's value, refused at once where it can't be used: before gigabytes follow it."""
    schema = SCHEMA["properties"][name]
    if "enum" in schema:
        fits = value in schema["enum"]
    else:
        is_number = re.fullmatch(r"[0-9]{1,9}", value) is not None
        fits = is_number and schema["minimum"] <= int(value) <= schema["maximum"]
    if not fits:
        raise not_allowed(name, schema, value)
    return value


def _file_name(part: Part) -> str:
    """The name without its folders, by either system's separator. It is shown, never opened."""
    if part.filename is None:
        raise InvalidRequest(
            "`file` must be a file with a name, not a plain field. With curl: -F file=@PATH",
            param="file",
            code="invalid_value",
        )
    name = PurePosixPath(part.filename.replace("\\", "/")).name
    has_control = any(unicodedata.category(character) == "Cc" for character in name)
    if not name or name == ".." or len(name) > LONGEST_NAME or has_control:
        raise InvalidRequest(
            f"The file's name must have 1 to {LONGEST_NAME} characters, "
            "none of them a control character.",
            param="file",
            code="invalid_file_name",
        )
    return name
