"""A model tried on one input."""

from __future__ import annotations

from typing import Any, Literal

from api.shapes.base import Identified, Shape
from core.clock import unix
from models.predictions import Prediction, PredictionStatus


class PredictionError(Shape):
    code: str
    message: str


class PredictionShown(Identified):
    object: Literal["prediction"] = "prediction"
    model: str
    status: PredictionStatus
    output: Any | None
    """In the form of the task's Hugging Face pipeline: labels with scores, entities, `{text}` …"""
    error: PredictionError | None
    created_at: int
    seconds: float | None
    """From when it was taken up to its end."""


def prediction(row: Prediction) -> PredictionShown:
    seconds = None
    if row.started_at is not None and row.finished_at is not None:
        seconds = round((row.finished_at - row.started_at).total_seconds(), 3)
    return PredictionShown(
        id=row.id,
        model=row.model_id,
        status=PredictionStatus(row.status),
        output=row.output["result"] if row.output else None,
        error=PredictionError(**row.error) if row.error else None,
        created_at=unix(row.created_at),
        seconds=seconds,
    )
