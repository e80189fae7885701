"""Lines of JSON read straight into columns: the fast way for a file whose rows are all alike.

Once the first rows have shown what a file's columns are, a whole block of lines is decoded to
structs of those types and checked by columns. It says yes or nothing: a block with anything that
does not fit (another type, a key that is unknown, twice or missing, a blank line, a chat with
tools) is read again line by line, which knows the places. Both give the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import UNSET, UnsetType

from ingest import columnar, hashing, kinds
from ingest.columnar import Columns
from ingest.columns import Binding
from ingest.messages import MESSAGE, MESSAGES
from ingest.tasks.base import Column, Row, Shape

CHAT = "messages"
"""The one shape that is read here though its rows are not their checked values."""

_COLON, _LF, _OPEN, _CLOSE, _BACKSLASH, _U, _THREE = np.frombuffer(b":\n{}\\u3", np.uint8)

_TYPES: dict[kinds.Kind, Any] = {
    kinds.text: str | None,
    kinds.label: str | int | None,
    kinds.number: float | int | None,
}
_SPARE = str | int | float | bool | None
"""A column that the task does not use. One of lists or objects makes all go line by line."""

_UNNAMEABLE = re.compile(r'[\x00-\x1f"\\]')
"""What no field of a struct can be called."""


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str


class TypedLines:
    """Inert until `expect` has said what the rows are like."""

    def __init__(self) -> None:
        self._decode: Callable[[bytes], list[Any]] | None = None

    def expect(
        self, shape: Shape, binding: Binding, rows: Sequence[Row], allowed: frozenset[str] | None
    ) -> None:
        """`rows` are the first of the file; `allowed` are the labels that there may be."""
        chat = shape.name == CHAT and [column.name for column, _ in binding] == [CHAT]
        if not chat and not columnar.suits(shape, binding):
            return
        types = {
            theirs: list[_Message] if chat else _TYPES[column.kind] for column, theirs in binding
        }
        for name in chain.from_iterable(rows):
            types.setdefault(name, _SPARE)
        if any(_UNNAMEABLE.search(name) for name in types):
            return
        # Every column may be absent here, so that the keys that are there can be counted.
        fields = [
            (f"c{index}", type | UnsetType, UNSET) for index, type in enumerate(types.values())
        ]
        names = [name for name, *_ in fields]
        line = msgspec.defstruct(
            "Line",
            fields,
            rename=dict(zip(names, types, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        self._binding = binding
        self._allowed = allowed
        self._chat = chat
        self._values = [attrgetter(name) for name in names]
        self._decode = msgspec.json.Decoder(line).decode_lines

    def columns(self, first: int, content: bytes) -> Columns | None:
        """The rows of a block, one a line, all of them good; None if any needs a closer look.

        `first` is the number of its first line.
        """
        if self._decode is None:
            return None
        if b"\r" in content:  # no text has one as it is, so these are line ends
            content = content.replace(b"\r\n", b"\n").removesuffix(b"\r")
        text = np.frombuffer(content, np.uint8)
        if b"\\" in content and _escaped_colon(text):
            return None
        try:
            rows = self._decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not _one_a_line(text, len(rows)):
            return None
        values = [list(map(value, rows)) for value in self._values]
        columns = Columns(np.arange(first, first + len(rows), dtype=np.int64))
        colons = sum(map(_colons, values[len(self._binding) :]))
        for (column, _), unchecked in zip(self._binding, values, strict=False):
            if self._chat:
                within = _add_chats(columns, unchecked)
            else:
                within = _add_checked(columns, column, unchecked)
            if within is None:
                return None
            colons += within
        # Each key has a colon. More of them than were decoded are those of a key that came twice.
        if colons != np.count_nonzero(text == _COLON):
            return None
        return columns if columns.only(self._allowed) else None


def _one_a_line(text: npt.NDArray[np.uint8], rows: int) -> bool:
    """Whether every line holds one of the objects: one ends before, one begins after each LF.

    That is so between no two parts of one object.
    """
    ends = text == _LF
    if np.count_nonzero(ends) != rows - 1:
        return False
    between = ends[1:-1] & (text[:-2] == _CLOSE) & (text[2:] == _OPEN)
    return int(np.count_nonzero(between)) == rows - 1


def _escaped_colon(text: npt.NDArray[np.uint8]) -> bool:
    """Whether a colon may be written as `\\u003a`: the colons in the text are counted."""
    escapes = (text[:-4] == _BACKSLASH) & (text[1:-3] == _U)
    return bool(escapes.any() and (escapes & (text[4:] == _THREE)).any())


def _colons(values: list[Any]) -> int:
    """Those of keys and texts in a column that is not used."""
    texts = "".join([value for value in values if type(value) is str])
    return len(values) - values.count(UNSET) + texts.count(":")


def _colons_in(array: pa.Array) -> int:
    """Those in texts that were put into an array of their own."""
    if not pa.types.is_string(array.type) or array.buffers()[2] is None:
        return 0
    return int(np.count_nonzero(np.frombuffer(array.buffers()[2], np.uint8) == _COLON))


def _add_checked(columns: Columns, column: Column, values: list[Any]) -> int | None:
    """Add one column, and say how many colons there are in it; None if it is not plainly good."""
    keys = len(values)
    if not column.required:
        keys -= values.count(UNSET)
        values = [None if value is UNSET else value for value in values]
    checked = columnar.check(column, values)
    if checked is None:
        return None
    columns.add(column.name, checked)
    return keys + _colons_in(checked.array)


def _add_chats(columns: Columns, chats: list[Any]) -> int | None:
    """The same of plain chats: each with an answer, and nothing but roles and contents."""
    if UNSET in chats:
        return None
    lengths = np.fromiter(map(len, chats), np.int32, len(chats))
    messages = list(chain.from_iterable(chats))
    roles, contents = [item.role for item in messages], [item.content for item in messages]
    hashes = hashing.of_values(roles)
    starts = np.zeros(len(chats) + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    answers = np.concatenate(([0], np.cumsum(hashes == hashing.of_values(["assistant"]))))
    if not (answers[starts[1:]] > answers[starts[:-1]]).all():
        return None
    known = [columnar.strings(roles)[0], columnar.strings(contents)[0]]
    absent = [pa.nulls(len(messages), field.type) for field in list(MESSAGE)[len(known) :]]
    parts = pa.StructArray.from_arrays([*known, *absent], fields=list(MESSAGE))
    columns.arrays[CHAT] = pa.ListArray.from_arrays(pa.array(starts), parts, type=MESSAGES)
    columns.hashes[CHAT] = hashing.of_lists(
        lengths,
        hashing.of_columns(
            [hashes, hashing.of_values(contents), *map(hashing.of_array, absent)], len(messages)
        ),
    )
    keys = len(chats) + 2 * len(messages)
    return keys + _colons_in(known[1])
