"""Uploads in parts: create, add parts in any order and in parallel, complete or cancel."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Request

from api.auth import Caller
from api.body import JsonBody
from api.context import Context, Here, Transaction
from api.errors import errors
from api.idempotent import Repeatable
from api.multipart import OVERHEAD_BYTES, parts
from api.routes.files import discard
from api.shapes.uploads import (
    CompleteUpload,
    CreateUpload,
    UploadObject,
    UploadPartObject,
    part_object,
    upload_object,
)
from core import ids
from core.errors import Conflict, InvalidRequest, NotFound, TooLarge, Unprocessable
from core.storage import Written
from models import files, uploads, validations
from models.files import File
from models.uploads import COMPLETED, Upload, UploadPart

router = APIRouter(prefix="/uploads", tags=["Uploads"])

_create_body = JsonBody(CreateUpload)
_complete_body = JsonBody(CompleteUpload)

PART_SCHEMA = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary"}},
}


@router.post("", responses=errors(TooLarge, Unprocessable), openapi_extra=_create_body.in_openapi())
async def create_upload(
    asked: Annotated[CreateUpload, Depends(_create_body)],
    call: Repeatable,
    here: Here,
    caller: Caller,
    db: Transaction,
) -> UploadObject:
    """Begin an upload. It takes parts until it is completed, cancelled, or expires."""
    if asked.bytes > here.settings.max_upload_bytes:
        raise TooLarge(
            f"{asked.bytes} bytes are more than this server takes: "
            f"{here.settings.max_upload_bytes}.",
            param="bytes",
        )

    async def make() -> str:
        upload = Upload(
            project_id=caller.project_id,
            filename=asked.filename,
            mime_type=asked.mime_type,
            purpose=asked.purpose,
            bytes=asked.bytes,
            file_lifetime_seconds=asked.expires_after.seconds if asked.expires_after else None,
        )
        return (await db(uploads.add, upload)).id

    upload_id, _ = await call.once(db, asked, make)
    return upload_object(*await db(uploads.get, caller.project_id, upload_id))


@router.post(
    "/{upload_id}/parts",
    responses=errors(NotFound, Conflict, TooLarge),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": PART_SCHEMA}},
        }
    },
)
async def add_upload_part(
    upload_id: str, request: Request, call: Repeatable, here: Here, caller: Caller
) -> UploadPartObject:
    """Add a part: the form's `data`. Parts may come in any order and at the same time."""
    async with here.transaction() as db:
        upload = await db(uploads.pending, caller.project_id, upload_id)
    part = UploadPart(id=ids.new("part_"), upload_id=upload_id)
    part.storage_key = uploads.part_key(caller.project_id, upload_id, part.id)
    try:
        written = await _receive(request, here, part, upload.bytes)
    except BaseException:
        await asyncio.to_thread(here.store.delete, part.storage_key)
        raise
    part.bytes, part.sha256 = written.bytes, written.sha256
    # Bytes of a part that is refused now are left to the orphans' reconciler: of a transaction
    # that broke, nobody can say here whether it was committed.
    async with here.transaction() as db:
        kept = await db(uploads.add_part, caller.project_id, part, is_retry=call.is_retry)
    return part_object(kept)


@router.post(
    "/{upload_id}/complete",
    responses=errors(NotFound, Conflict, TooLarge),
    openapi_extra=_complete_body.in_openapi(),
)
async def complete_upload(
    upload_id: str,
    asked: Annotated[CompleteUpload, Depends(_complete_body)],
    here: Here,
    caller: Caller,
    after_commit: BackgroundTasks,
) -> UploadObject:
    """Join the parts, in the order given, into a file. Repeating it gives the same file."""
    async with here.transaction() as db:
        upload, made = await db(uploads.get, caller.project_id, upload_id)
        if upload.status == COMPLETED:
            return upload_object(upload, made)
        upload = await db(uploads.pending, caller.project_id, upload_id)
        chosen = await db(uploads.chosen_parts, upload, asked.part_ids)
    file = File(
        id=ids.file(),
        project_id=caller.project_id,
        filename=upload.filename,
        purpose=upload.purpose,
        status="processed",
    )
    file.storage_key = files.storage_key(file.project_id, file.id)
    try:
        await _join(here, chosen, file, asked.md5)
    except BaseException:
        await asyncio.to_thread(here.store.delete, file.storage_key)
        raise
    try:
        async with here.transaction() as db:
            spare = await db(uploads.complete, caller.project_id, upload_id, file)
            check = await db(validations.for_file, file)
    except Conflict:
        # An equal call was faster. Its file is the answer to this one too.
        await asyncio.to_thread(here.store.delete, file.storage_key)
        async with here.transaction() as db:
            upload, made = await db(uploads.get, caller.project_id, upload_id)
        if made is None:
            raise
        return upload_object(upload, made)
    if check is not None:
        after_commit.add_task(here.doorbell.validate, check.id)
    await discard(here, spare)
    async with here.transaction() as db:
        return upload_object(*await db(uploads.get, caller.project_id, upload_id))


@router.post("/{upload_id}/cancel", responses=errors(NotFound, Conflict))
async def cancel_upload(upload_id: str, caller: Caller, db: Transaction) -> UploadObject:
    """Give an upload up. Its parts are removed."""
    return upload_object(await db(uploads.cancel, caller.project_id, upload_id))


async def _receive(request: Request, here: Context, part: UploadPart, limit: int) -> Written:
    """Store the form's `data`. Raises InvalidRequest or TooLarge."""
    written: Written | None = None
    async for field in parts(request, limit + OVERHEAD_BYTES):
        if field.name != "data" or written is not None:
            raise InvalidRequest(
                "The form of a part has one field, `data`, once.", param=field.name
            )
        written = await here.store.write_stream(part.storage_key, field.chunks, limit=limit)
    if written is None or written.bytes == 0:
        raise InvalidRequest(
            "The part holds no data. Send it as the form's field `data`.",
            param="data",
            code="missing_required_parameter",
        )
    return written


async def _join(here: Context, chosen: list[UploadPart], file: File, md5: str | None) -> None:
    """Write the parts one after the other to the file's key, hashing. Raises InvalidRequest."""
    digest = hashlib.md5(usedforsecurity=False)

    async def joined() -> AsyncIterator[bytes]:
        for part in chosen:
            async for chunk in here.store.stream(part.storage_key, 0, part.bytes):
                digest.update(chunk)
                yield chunk

    written = await here.store.write_stream(file.storage_key, joined())
    file.bytes, file.sha256 = written.bytes, written.sha256
    if md5 is not None and digest.hexdigest() != md5.lower():
        raise InvalidRequest(
            f"The parts together have the MD5 {digest.hexdigest()}, not {md5.lower()}. "
            "Check their order, and that no part changed on the way.",
            param="md5",
            code="checksum_mismatch",
        )
