"""What a task asks of its data: columns, shapes and one Arrow schema.

A task's rows may be written in several shapes (`text,label` or `text,target`); each becomes the
same schema. A new task is one file in this package with a `FORMAT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from ingest.kinds import Kind

Row = dict[str, Any]
Modality = Literal["text", "image", "audio"]
Layout = Literal["class_folders", "metadata", "coco", "yolo", "masks"]

ID = pa.field("id", pa.int64(), nullable=False)
"""The row's place in the source (line, or row where there are no lines), from 1, for messages."""

IMAGE = (
    pa.field("image", pa.binary(), nullable=False),
    pa.field("file", pa.string()),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
)
"""The image file's own bytes, not pixels; its name; its size in pixels as it is shown (EXIF
orientation applied)."""

AUDIO = (
    pa.field("audio", pa.binary(), nullable=False),
    pa.field("file", pa.string()),
    pa.field("sampling_rate", pa.int32(), nullable=False),
    pa.field("seconds", pa.float64(), nullable=False),
)
"""The audio file's own bytes; its name; its rate in Hz and its length."""


def no_labels(row: Row) -> Iterable[str]:
    return ()


def one_label(row: Row) -> Iterable[str]:
    return (row["label"],)


def _as_is(row: Row) -> Row:
    return row


@dataclass(frozen=True)
class Column:
    name: str
    description: str
    kind: Kind
    required: bool = True
    aliases: tuple[str, ...] = ()
    """Names in the file, in lower case, that leave no doubt when the primary name is absent."""
    loads: str | None = None
    """The value names a file of the archive, whose bytes `build` finds under this name."""


@dataclass(frozen=True)
class Samples:
    """What the first rows hold, for telling shapes apart whose columns have equal names."""

    names: Mapping[str, str]
    """Our column → the file's."""
    values: Mapping[str, Sequence[Any]]
    """Our column → its values that are there."""
    mapped: frozenset[str]
    """Our columns that the user named in `column_mapping`."""


@dataclass(frozen=True)
class Shape:
    """One way of writing a task's rows."""

    name: str
    columns: tuple[Column, ...]
    build: Callable[[Row], Row] = _as_is
    """Makes a row of the schema from checked values; raises BadValue. `id` is added after it, and
    null for what the row lacks."""
    labels: Callable[[Row], Iterable[str]] = no_labels
    """The class names that a built row holds."""
    min_labels: int = 0
    """How many different ones training data must hold."""
    accepts: Callable[[Samples], bool] | None = None
    """Whether the first rows are of this shape; may raise BadValue with a question to the user."""

    @property
    def plain(self) -> bool:
        """Whether the checked values are the row. Columns that they lack are null."""
        return self.build is _as_is and not any(column.loads for column in self.columns)


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
    inputs: tuple[str, ...]
    """The schema's columns that the model is given. Rows that share them are duplicates, and
    contradict each other where `outputs` differ."""
    outputs: tuple[str, ...]
    example: Sequence[Row]
    """A minimal dataset, as the user would write it."""
    example_text: dict[str, str] = field(default_factory=dict)
    """The same as text, by format: `csv`, `jsonl`."""
    counted: tuple[str, ...] = ()
    """The schema's columns whose characters are counted by others, so that none may change."""
    plain_text: Literal["lines", "conll"] | None = None
    """How a file without columns is read; None where it cannot be."""
    unnest: Callable[[Row], Iterator[Row] | None] | None = None
    """Rows inside of a JSON document's element (SQuAD's articles); None for a row as it is."""
    layouts: tuple[Layout, ...] = ()
    """How an archive may be laid out, in the order in which they are tried."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the primary shape."""
        return self.shapes[0].columns
