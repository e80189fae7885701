"""The data formats of every task, found by file name. A task may be known here before it trains."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module

import pyarrow as pa

from core.errors import Unprocessable
from ingest.tasks.base import Column, TaskFormat

TABLE = TaskFormat(
    name="a table",
    title="",
    description="No task: any rows with columns, for telling the task from them.",
    modality="text",
    schema=pa.schema([]),
    shapes=(),
    formats=(),
    metrics=(),
    inputs=(),
    outputs=(),
    example=(),
)


@lru_cache
def _registry() -> dict[str, TaskFormat]:
    modules = (
        import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if found.name != "base"
    )
    formats = (module.FORMAT for module in modules)
    return {format.name: format for format in formats}


def all_formats() -> list[TaskFormat]:
    return list(_registry().values())


def get(name: str) -> TaskFormat:
    try:
        return _registry()[name]
    except KeyError:
        raise Unprocessable(
            f"No data format is known for the task `{name}`.",
            param="task",
            hint=f"Known tasks: {', '.join(sorted(_registry()))}.",
        ) from None


def fitting(columns: Iterable[str]) -> list[str]:
    """The tasks whose columns these are: more than one where they leave a doubt.

    The shape that explains the most columns wins. Equals are such as a premise, a hypothesis and a
    label, from which one may learn to classify or to embed.
    """
    names = list(columns)
    explained: dict[int, list[str]] = {}
    for format in all_formats():
        fits = fit(format, names)
        if fits is not None:
            explained.setdefault(fits[0], []).append(format.name)
    return explained[max(explained)] if explained else []


def infer(columns: Iterable[str]) -> str | None:
    """The task whose columns these are; None when none fits or more than one does."""
    found = fitting(columns)
    return found[0] if len(found) == 1 else None


def fit(format: TaskFormat, columns: Iterable[str]) -> tuple[int, int] | None:
    """How many columns the task's best shape explains, and how many of them by their own names;
    None if it lacks one that it requires."""
    names = {name.strip().lower() for name in columns}
    return max(
        (
            (
                sum(_is_there(column, names) for column in shape.columns),
                sum(column.name in names for column in shape.columns),
            )
            for shape in format.shapes
            if all(_is_there(column, names) for column in shape.columns if column.required)
        ),
        default=None,
    )


def _is_there(column: Column, names: set[str]) -> bool:
    return column.name in names or any(alias in names for alias in column.aliases)
