"""Files: upload, list, retrieve, delete, content."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response

from api import download
from api.auth import Caller
from api.context import Context, Here, Transaction
from api.errors import errors
from api.file_form import SCHEMA, Uploaded, receive
from api.idempotent import Repeatable
from api.paging import After, ListOf, page_of
from api.shapes.files import FileDeleted, FileObject, file_object
from core import ids
from core.errors import Conflict, NotFound, RangeNotSatisfiable, TooLarge, Unprocessable
from core.storage import StorageUnavailable
from models import files, validations
from models.files import File

MAX_FILES = 10_000

router = APIRouter(prefix="/files", tags=["Files"])

log = logging.getLogger(__name__)


@router.post(
    "",
    responses=errors(TooLarge, Unprocessable),
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": SCHEMA}}}
    },
)
async def create_file(
    request: Request, call: Repeatable, here: Here, caller: Caller, after_commit: BackgroundTasks
) -> FileObject:
    """Upload a file. Its bytes go to storage as they come; fields may stand in any order.

    One for fine-tuning is then checked by itself: `uploaded` becomes `processed` or `error`.
    A call that is repeated, by its `Idempotency-Key` or by the client itself, makes one file.
    """
    file = File(id=ids.file(), project_id=caller.project_id, status="processed")
    file.storage_key = files.storage_key(file.project_id, file.id)
    try:
        lifetime = await receive(request, here.store, file, here.settings.max_upload_bytes)
    except BaseException:
        # However it ended, by the caller's leaving too: no bytes without a row.
        await asyncio.to_thread(here.store.delete, file.storage_key)
        raise
    # From here on the bytes stay whatever happens: a commit may have been made though its answer
    # was lost. If it was not, the orphans' reconciler takes them.
    spare: str | None = file.storage_key
    async with here.transaction() as db:

        async def make() -> str:
            nonlocal spare
            spare = await db(files.add_upload, file, lifetime)
            check = await db(validations.for_file, file)
            if check is not None:
                after_commit.add_task(here.doorbell.validate, check.id)
            return file.id

        uploaded = Uploaded(purpose=file.purpose, filename=file.filename, sha256=file.sha256)
        file_id, is_new = await call.once(db, uploaded, make)
        kept = file if is_new else await db(files.get, caller.project_id, file_id)
    await discard(here, spare)
    return file_object(kept)


async def discard(here: Context, spare: str | None) -> None:
    """Remove bytes that another file's stand for. While the storage is away they are left to the
    orphans' reconciler: the file is recorded, and that is the answer."""
    if spare is not None:
        try:
            await asyncio.to_thread(here.store.delete, spare)
        except StorageUnavailable as error:
            log.warning("%s is left to be cleaned: %s", spare, error)


@router.get("")
async def list_files(
    caller: Caller,
    db: Transaction,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=MAX_FILES)] = MAX_FILES,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> ListOf[FileObject]:
    page = await db(
        files.listing,
        caller.project_id,
        purpose=purpose,
        after=after,
        limit=limit,
        ascending=order == "asc",
    )
    return page_of(page, file_object)


@router.get("/{file_id}", responses=errors(NotFound))
async def retrieve_file(file_id: str, caller: Caller, db: Transaction) -> FileObject:
    return file_object(await db(files.get, caller.project_id, file_id))


@router.delete("/{file_id}", responses=errors(NotFound))
async def delete_file(file_id: str, caller: Caller, db: Transaction) -> FileDeleted:
    """Delete a file. Jobs that were made with it keep what they need of it."""
    await db(files.delete, caller.project_id, file_id)
    await db(validations.release, file_id)
    return FileDeleted(id=file_id)


@router.head("/{file_id}/content", include_in_schema=False)
@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses=download.in_openapi() | errors(NotFound, Conflict, RangeNotSatisfiable),
)
async def file_content(file_id: str, request: Request, here: Here, caller: Caller) -> Response:
    """The file's bytes. `Range` continues a download that broke off."""
    # No connection to the database is held while a storage that may be slow is waited for.
    async with here.transaction() as db:
        file = await db(files.get, caller.project_id, file_id)
    if not file.sha256:
        raise Conflict(
            f"The bytes of {file_id} have not come from {file.source}. Its `status` says whether "
            "they are awaited, its `status_details` what went wrong.",
            code="file_not_there_yet",
        )
    content = download.Download(
        [download.Stored(file.storage_key, file.bytes)], file.sha256, file.filename
    )
    return await download.serve(request, here.store, content)
