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


def infer(columns: Iterable[str]) -> str | None:
    """The task whose columns these are; None when none fits or more than one does.

    The shape that explains the most columns wins. Equals leave a doubt, such as a premise, a
    hypothesis and a label, from which one may learn to classify or to embed.
    """
    names = {name.strip().lower() for name in columns}
    explained: dict[int, set[str]] = {}
    for format in all_formats():
        for shape in format.shapes:
            there = sum(_is_there(column, names) for column in shape.columns)
            if all(_is_there(column, names) for column in shape.columns if column.required):
                explained.setdefault(there, set()).add(format.name)
    if not explained:
        return None
    best = explained[max(explained)]
    return best.pop() if len(best) == 1 else None


def _is_there(column: Column, names: set[str]) -> bool:
    return column.name in names or any(alias in names for alias in column.aliases)
