"""A batch checked by columns: the fast way for rows that are plainly good.

It says yes or nothing. Whatever it does not take as a whole, for a bad value or an unusual one,
goes row by row through `check`, which knows the places; both give the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest import hashing, kinds
from ingest.columns import Binding
from ingest.hashing import Hashes
from ingest.tasks.base import Column, Row, Shape

_ABSENT = type(None)
_INT32_MAX = 2**31 - 1


class Checked(NamedTuple):
    values: list[Any]
    array: pa.Array
    counts: Counter[str] | None = None
    """How often each value occurs, where that had to be found out."""


class Columns:
    """Our columns' canonical values as Arrow has them, with what is known of them besides."""

    def __init__(self, places: Sequence[int] | npt.NDArray[np.int64]) -> None:
        self.arrays: dict[str, pa.Array] = {"id": pa.array(np.asarray(places, np.int64))}
        self.hashes: dict[str, Hashes] = {}
        self.labels: Counter[str] = Counter()
        """How often each value of the column `label` occurs."""

    def add(self, name: str, checked: Checked) -> None:
        self.arrays[name] = checked.array
        if name == "label" and checked.counts is not None:
            self.labels = checked.counts
        self.hashes[name] = hashing.of_values(checked.values)

    def only(self, allowed: frozenset[str] | None) -> bool:
        return allowed is None or allowed >= self.labels.keys()

    def table(self, schema: pa.Schema) -> pa.RecordBatch:
        """The batch in the task's schema; columns that are not there are null."""
        rows = len(self.arrays["id"])
        return pa.RecordBatch.from_arrays(
            [
                self.arrays[field.name] if field.name in self.arrays else pa.nulls(rows, field.type)
                for field in schema
            ],
            schema=schema,
        )


def suits(shape: Shape, binding: Binding) -> bool:
    """Whether the shape's rows are its checked values, all of kinds that are known here."""
    return shape.plain and all(column.kind in _CHECKS for column, _ in binding)


def take(places: Sequence[int], rows: Sequence[Row], binding: Binding) -> Columns | None:
    """The columns' canonical values; None if any of them needs a closer look."""
    columns = Columns(places)
    for column, theirs in binding:
        if column.required:
            try:
                values = [row[theirs] for row in rows]
            except KeyError:
                return None
        else:
            values = [row.get(theirs) for row in rows]
        checked = check(column, values)
        if checked is None:
            return None
        columns.add(column.name, checked)
    return columns


def check(column: Column, values: list[Any]) -> Checked | None:
    """One column's values in canonical form; None if any of them needs a closer look."""
    return _CHECKS[column.kind](values, not column.required)


def strings(values: list[str]) -> tuple[pa.Array, npt.NDArray[np.uint8]]:
    """Texts as an Arrow array, and the bytes of all of them.

    Put together here, since the length of an ASCII text is known without looking at it.
    """
    joined = "".join(values)
    content = joined.encode()
    if len(content) > _INT32_MAX:
        array = pa.array(values, pa.string())  # raises what there is to raise
        return array, np.frombuffer(array.buffers()[2], np.uint8)
    ends = np.zeros(len(values) + 1, np.int32)
    lengths = ends[1:]
    lengths[:] = np.fromiter(map(len, values), np.int32, len(values))
    if len(content) != len(joined):
        ascii = np.fromiter(map(str.isascii, values), np.bool_, len(values))
        others = np.flatnonzero(~ascii)
        lengths[others] = [len(values[place].encode()) for place in others]
    np.cumsum(lengths, out=lengths)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
    array = pa.Array.from_buffers(pa.string(), len(values), buffers)
    return array, np.frombuffer(content, np.uint8)


def _texts(values: list[Any], optional: bool) -> Checked | None:
    found = set(map(type, values))
    if not found <= _wanted(str, optional):
        return None
    if _ABSENT in found:
        if "" in values:
            return None
        array = pa.array(values, pa.string())
        if array.null_count == len(array):
            return Checked(values, array)
        # The array was made here, so its bytes are its own.
        content = np.frombuffer(array.buffers()[2], np.uint8)
    else:
        if not all(values):
            return None  # an empty one
        array, content = strings(values)
    if any(map(str.isspace, filter(None, values))):
        return None
    return Checked(values, array) if content.all() else None  # a NUL


def _labels(values: list[Any], optional: bool) -> Checked | None:
    found = set(map(type, values))
    if found == {int}:
        values = list(map(str, values))
    elif not found <= _wanted(str, optional):
        return None
    counts = Counter(values)
    if any(name is not None and (not name or name.isspace()) for name in counts):
        return None
    array = pa.array(values, pa.string()) if _ABSENT in found else strings(values)[0]
    return Checked(values, array, counts)


def _numbers(values: list[Any], optional: bool) -> Checked | None:
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:
        return None
    return Checked(numbers.tolist(), pa.array(numbers)) if np.isfinite(numbers).all() else None


def _wanted(kind: type, optional: bool) -> set[type]:
    return {kind, _ABSENT} if optional else {kind}


_CHECKS: dict[kinds.Kind, Callable[[list[Any], bool], Checked | None]] = {
    kinds.text: _texts,
    kinds.label: _labels,
    kinds.number: _numbers,
}
