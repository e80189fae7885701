"""Models: base ones, fine-tuned ones, and the files of these.

A model's id may hold slashes and colons, so it is a path of its own; the longer routes stand first.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from api import archive, download
from api.auth import Caller
from api.context import Context, Here, Transaction
from api.errors import errors
from api.shapes.models import (
    Model,
    ModelDeleted,
    ModelFileList,
    ModelList,
    base_model,
    fine_tuned_model,
    model_files,
)
from core.errors import InvalidRequest, NotFound, NotPermitted, RangeNotSatisfiable
from models import catalogue, registry
from models.keys import ApiKey
from models.registry import FineTunedModel

FINE_TUNED = "ft:"

router = APIRouter(prefix="/models", tags=["Models"])


@router.get("")
async def list_models(here: Here, caller: Caller, db: Transaction) -> ModelList:
    """Base models that are known without asking a hub, then the project's own, newest first."""
    bases = [base_model(name) for name in catalogue.names(here.settings)]
    page = await db(registry.listing, caller.project_id)
    return ModelList(data=bases + [fine_tuned_model(row) for row in page.rows])


@router.get("/{model:path}/files", responses=errors(NotFound))
async def list_model_files(model: str, caller: Caller, db: Transaction) -> ModelFileList:
    """The files of a fine-tuned model: a folder that `transformers` loads."""
    return model_files(await db(registry.get, caller.project_id, model))


@router.head("/{model:path}/files/{path:path}", include_in_schema=False)
@router.get(
    "/{model:path}/files/{path:path}",
    response_class=Response,
    responses=download.in_openapi() | errors(NotFound, RangeNotSatisfiable),
)
async def model_file(
    model: str, path: str, request: Request, here: Here, caller: Caller
) -> Response:
    """One file of a fine-tuned model. `Range` continues a download that broke off."""
    row = await _of_project(here, caller, model)
    for file in row.files:
        if file["path"] == path:
            stored = download.Stored(f"{row.prefix}/{path}", file["bytes"])
            name = path.rsplit("/", 1)[-1]
            content = download.Download([stored], file["sha256"], name)
            return await download.serve(request, here.store, content)
    raise NotFound(
        f"The model {model} has no file {path!r}. GET /v1/models/{model}/files lists its files.",
        param="path",
    )


@router.head("/{model:path}/archive", include_in_schema=False)
@router.get(
    "/{model:path}/archive",
    response_class=Response,
    responses=download.in_openapi(archive.MEDIA_TYPE) | errors(NotFound, RangeNotSatisfiable),
)
async def model_archive(model: str, request: Request, here: Here, caller: Caller) -> Response:
    """All files of a fine-tuned model as one tar."""
    row = await _of_project(here, caller, model)
    return await download.serve(request, here.store, archive.archive(row))


async def _of_project(here: Context, caller: ApiKey, model: str) -> FineTunedModel:
    """The model, and no connection to the database kept while its bytes are waited for."""
    async with here.transaction() as db:
        return await db(registry.get, caller.project_id, model)


@router.get("/{model:path}", responses=errors(NotFound))
async def retrieve_model(model: str, here: Here, caller: Caller, db: Transaction) -> Model:
    """A base model, a fine-tuned one, or a checkpoint's (`ft:…:ckpt-step-N`)."""
    if model.startswith(FINE_TUNED):
        return fine_tuned_model(await db(registry.get, caller.project_id, model))
    try:
        return base_model((await asyncio.to_thread(catalogue.find, here.settings, model)).name)
    except InvalidRequest as error:
        raise NotFound(error.message, param="model", code=error.error_code) from error


@router.delete("/{model:path}", responses=errors(NotFound))
async def delete_model(model: str, here: Here, caller: Caller, db: Transaction) -> ModelDeleted:
    """Delete a fine-tuned model and, in time, its bytes."""
    if model in catalogue.names(here.settings):
        raise NotPermitted(
            f"{model} is a base model, which belongs to the server. "
            "Only fine-tuned models (`ft:…`) can be deleted.",
            param="model",
            code="base_model",
        )
    await db(registry.delete, caller.project_id, model)
    return ModelDeleted(id=model)
