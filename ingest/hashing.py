"""Columns as 64-bit hashes, one a row, for finding rows that are the same.

Built on Python's own hash of texts, which is keyed anew in every process: a hash holds within this
process alone, and nobody can write rows that collide on purpose. Equal values of one column type
have equal hashes, however the values came here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

# Any odd multipliers do: what is multiplied is spread over 64 bits already.
_FIELD = np.uint64(0x9E3779B97F4A7C15)
_ITEM = np.uint64(0xD1342543DE82EF95)
_LENGTH = np.uint64(0xAF251AF3B0F025B5)


def of_values(values: Sequence[Any]) -> Hashes:
    """Of Python values as `to_pylist` gives them, none of them a list or an object."""
    return np.fromiter(map(hash, values), np.int64, len(values)).view(np.uint64)


def of_columns(columns: Sequence[Hashes], rows: int) -> Hashes:
    """Of each row's values together, in this order."""
    total = np.zeros(rows, np.uint64)
    for column in columns:
        total = total * _FIELD + column
    return _spread(total)


def of_lists(lengths: npt.NDArray[Any], items: Hashes) -> Hashes:
    """Of lists whose items, one after the other, have the hashes `items`.

    The sum of item j times a constant to the power j, so the order counts.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    longest = int(lengths.max(initial=0))
    powers = np.multiply.accumulate(np.full(longest + 1, _ITEM))
    position = np.arange(len(items)) - np.repeat(starts, lengths)
    sums = np.concatenate(([np.uint64(0)], np.cumsum(items * powers[position], dtype=np.uint64)))
    return _spread(sums[ends] - sums[starts] + lengths.astype(np.uint64) * _LENGTH)


def _spread(sums: Hashes) -> Hashes:
    """SplitMix64's last step, which no two numbers share a result of (Steele, Lea and Flood 2014).

    A sum of sums would not tell [[0, 0], [1, 1]] from [[0, 1], [0, 1]]: item i of list j would
    weigh what item j of list i does.
    """
    sums = (sums ^ (sums >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    sums = (sums ^ (sums >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return sums ^ (sums >> np.uint64(31))


def of_array(array: pa.Array) -> Hashes:
    """Of a column of any type that the tasks' schemas have."""
    if array.null_count == len(array):
        return np.full(len(array), hash(None), np.int64).view(np.uint64)
    if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = np.asarray(pc.list_value_length(array).fill_null(0))
        hashes = of_lists(lengths, of_array(array.flatten()))
    elif pa.types.is_struct(array.type):
        fields = [of_array(part) for part in array.flatten()]
        hashes = of_columns(fields, len(array))
    else:
        return of_values(array.to_pylist())
    if array.null_count:
        hashes[~np.asarray(array.is_valid())] = np.uint64(hash(None) % 2**64)
    return hashes
