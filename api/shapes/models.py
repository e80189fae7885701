"""Models, as OpenAI's `Model`, and the files that a fine-tuned one stands for."""

from __future__ import annotations

from typing import Any, Literal

from api.shapes.base import Shape
from core.clock import unix
from models.registry import FineTunedModel


class Model(Shape):
    id: str
    object: Literal["model"] = "model"
    created: int
    """0 for base models: nobody knows."""
    owned_by: str
    """`base`, or the project's id."""

    # Ours, of fine-tuned models.
    base_model: str | None = None
    task: str | None = None
    fine_tuning_job_id: str | None = None
    step: int | None = None
    """Of a checkpoint's model."""
    bytes: int | None = None
    metrics: dict[str, Any] | None = None


class ModelList(Shape):
    object: Literal["list"] = "list"
    data: list[Model]


class ModelDeleted(Shape):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class ModelFile(Shape):
    path: str
    bytes: int
    sha256: str
    etag: str


class ModelFileList(Shape):
    object: Literal["list"] = "list"
    data: list[ModelFile]


def base_model(name: str) -> Model:
    return Model(id=name, created=0, owned_by="base")


def fine_tuned_model(row: FineTunedModel) -> Model:
    return Model(
        id=row.id,
        created=unix(row.created_at),
        owned_by=row.project_id,
        base_model=row.base_model,
        task=row.task,
        fine_tuning_job_id=row.job_id,
        step=row.step,
        bytes=row.bytes,
        metrics=row.metrics,
    )


def model_files(row: FineTunedModel) -> ModelFileList:
    return ModelFileList(
        data=[
            ModelFile(
                path=file["path"],
                bytes=file["bytes"],
                sha256=file["sha256"],
                etag=f'"{file["sha256"]}"',
            )
            for file in row.files
        ]
    )
