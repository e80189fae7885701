"""Tasks: their data, an example, their metrics, and what a job for them may set."""

from __future__ import annotations

from typing import Any, Literal

from api.shapes.base import Shape
from ingest.tasks import base as formats
from models.spec import Hyperparameters
from models.tasks import TRAINABLE


class TaskColumn(Shape):
    name: str
    description: str
    required: bool
    aliases: list[str]
    """Other names that are understood without `column_mapping`."""


class TaskShape(Shape):
    """One way of writing the task's rows."""

    name: str
    columns: list[TaskColumn]


class Task(Shape):
    id: str
    object: Literal["task"] = "task"
    title: str
    description: str
    modality: Literal["text", "image", "audio"]
    trainable: bool
    """Whether jobs can be made of it today; of the others the data format is settled."""
    shapes: list[TaskShape]
    """The first is the primary one."""
    formats: list[str]
    example: list[dict[str, Any]]
    example_text: dict[str, str]
    """The same dataset as text, by format."""
    metrics: list[str]
    hyperparameters: dict[str, Any]
    """A JSON schema, with defaults."""


class TaskList(Shape):
    object: Literal["list"] = "list"
    data: list[Task]


def task(format: formats.TaskFormat) -> Task:
    return Task(
        id=format.name,
        title=format.title,
        description=format.description,
        modality=format.modality,
        trainable=format.name in TRAINABLE,
        shapes=[_shape(shape) for shape in format.shapes],
        formats=list(format.formats),
        example=[dict(row) for row in format.example],
        example_text=format.example_text,
        metrics=list(format.metrics),
        hyperparameters=Hyperparameters.model_json_schema(),
    )


def _shape(shape: formats.Shape) -> TaskShape:
    return TaskShape(
        name=shape.name,
        columns=[
            TaskColumn(
                name=column.name,
                description=column.description,
                required=column.required,
                aliases=list(column.aliases),
            )
            for column in shape.columns
        ],
    )
