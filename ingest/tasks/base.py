"""What a task asks of its data: columns, shapes and one Arrow schema.

A task's rows may be written in several shapes (`text,label` or `text,target`); each becomes the
same schema. A new task is one file in this package with a `FORMAT`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from ingest.kinds import Kind

Row = dict[str, Any]
Modality = Literal["text", "image", "audio"]

ID = pa.field("id", pa.int64(), nullable=False)
"""The row's place in the source (line, or row where there are no lines), from 1, for messages."""


@dataclass(frozen=True)
class Column:
    name: str
    description: str
    kind: Kind
    required: bool = True
    aliases: tuple[str, ...] = ()
    """Names in the file, in lower case, that leave no doubt when the primary name is absent."""


def _as_is(row: Row) -> Row:
    return row


@dataclass(frozen=True)
class Shape:
    """One way of writing a task's rows."""

    name: str
    columns: tuple[Column, ...]
    build: Callable[[Row], Row] = _as_is
    """Makes a row of the schema from checked values; raises BadValue. `id` is added after it."""
    labels: bool = False
    """Whether `label` holds one class name a row."""

    def required(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns if column.required)


@dataclass(frozen=True)
class TaskFormat:
    name: str
    title: str
    description: str
    modality: Modality
    schema: pa.Schema
    shapes: tuple[Shape, ...]
    """The first is the primary one."""
    formats: tuple[str, ...]
    """The accepted formats, in words."""
    metrics: tuple[str, ...]
    example: Sequence[Row]
    """A minimal dataset, as the user would write it."""
    example_text: dict[str, str] = field(default_factory=dict)
    """The same as text, by format: `csv`, `jsonl`."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the primary shape."""
        return self.shapes[0].columns
