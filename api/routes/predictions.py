"""Predictions: a small fine-tuned model tried on one input."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.auth import Caller
from api.body import JsonBody
from api.context import Here, Transaction
from api.errors import errors
from api.shapes.predictions import PredictionShown, prediction
from core.errors import InvalidRequest, NotFound, TooLarge
from models import files, predictions, registry
from models.predictions import PENDING, FileInput, PredictionRequest
from models.registry import FineTunedModel

MOST_SECONDS = 30.0
ASK_SECONDS = 0.2
WEIGHTS = ".safetensors"

router = APIRouter(prefix="/predictions", tags=["Predictions"])

_body = JsonBody(PredictionRequest)


@router.post("", responses=errors(NotFound, TooLarge), openapi_extra=_body.in_openapi())
async def create_prediction(
    asked: Annotated[PredictionRequest, Depends(_body)],
    here: Here,
    caller: Caller,
    wait: Annotated[
        float,
        Query(ge=0, le=MOST_SECONDS, description="Seconds to wait for the answer at most."),
    ] = 0,
) -> PredictionShown:
    """Try a fine-tuned model. It is run on a control worker's CPU, so it must be small."""
    deadline = time.monotonic() + wait
    async with here.transaction() as db:
        model = await db(registry.get, caller.project_id, asked.model)
        _require_small(model, here.settings.prediction_model_bytes)
        if isinstance(asked.input, FileInput):
            await db(files.get, caller.project_id, asked.input.file, param="input.file")
        row = await db(predictions.create, caller.project_id, asked)
    # In a thread, bounded by the broker's time-out; a lost ring is rung again.
    await asyncio.to_thread(here.doorbell.predict, row.id)
    while True:
        async with here.transaction() as db:
            row = await db(predictions.get, caller.project_id, row.id)
        if row.status not in PENDING or time.monotonic() > deadline:
            return prediction(row)
        await asyncio.sleep(ASK_SECONDS)


@router.get("/{prediction_id}", responses=errors(NotFound))
async def retrieve_prediction(
    prediction_id: str, caller: Caller, db: Transaction
) -> PredictionShown:
    """Predictions are kept for a day."""
    return prediction(await db(predictions.get, caller.project_id, prediction_id))


def _require_small(model: FineTunedModel, most: int) -> None:
    size = sum(file["bytes"] for file in model.files if file["path"].endswith(WEIGHTS))
    if size > most:
        raise InvalidRequest(
            f"The model's weights have {size / 2**30:.1f} GiB, and models are tried here up to "
            f"{most / 2**30:.1f} GiB. Download it and load it on a machine of yours, or ask the "
            "administrator to raise LUTHIER_PREDICTION_MODEL_BYTES.",
            param="model",
            code="model_too_large",
        )
