"""Validations: what was asked of data files, and what was found in them."""

from __future__ import annotations

from typing import Any, Literal

from api.shapes.base import Identified, Shape
from core.clock import unix
from models.base import Json
from models.data_spec import Cleaning
from models.validations import Validation, ValidationStatus


class ValidationProblem(Shape):
    code: str
    message: str
    param: str | None
    details: list[dict[str, Any]]
    """The problems with their places: file, line, row, entry, column, code, message, hint."""


class CheckedFile(Shape):
    rows: int
    """That are left to train on, or to validate on."""
    labels: list[str]
    shape: str
    """Which of the task's ways of writing a row it has."""
    report: dict[str, Any]
    skipped_file: str | None
    """The bad rows that `skip_invalid` left out, a JSON object a line."""


class FineTuningValidation(Identified):
    object: Literal["fine_tuning.validation"] = "fine_tuning.validation"
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: ValidationStatus
    automatic: bool
    """Begun by an upload, not by a call or a job."""
    training_file: str
    validation_file: str | None
    task: str | None
    """As asked for; else as found, once it is."""
    model: str | None
    column_mapping: dict[str, str] | None
    skip_invalid: float
    cleaning: Cleaning | None
    training: CheckedFile | None
    validation: CheckedFile | None
    error: ValidationProblem | None


def fine_tuning_validation(row: Validation) -> FineTuningValidation:
    asked = row.asked()
    return FineTuningValidation(
        id=row.id,
        created_at=unix(row.created_at),
        started_at=unix(row.started_at) if row.started_at else None,
        finished_at=unix(row.finished_at) if row.finished_at else None,
        status=ValidationStatus(row.status),
        automatic=row.automatic,
        training_file=row.training_file_id,
        validation_file=row.validation_file_id,
        task=row.task or row.asked_task,
        model=asked.model,
        column_mapping=asked.column_mapping,
        skip_invalid=asked.skip_invalid or 0.0,
        cleaning=asked.cleaning,
        training=_checked(row.training),
        validation=_checked(row.validation),
        error=ValidationProblem(**row.error) if row.error else None,
    )


def _checked(found: Json | None) -> CheckedFile | None:
    if found is None:
        return None
    return CheckedFile(
        rows=found["rows"],
        labels=found["labels"],
        shape=found["shape"],
        report=found["report"],
        skipped_file=found.get("skipped_file"),
    )
