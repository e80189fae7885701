"""Rows have equal hashes where they are equal, and others where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import hashing
from ingest.messages import MESSAGES

TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "ab", "é"]))
STRUCT = pa.struct([("a", pa.string()), ("b", pa.list_(pa.int64()))])
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): TEXTS,
    pa.float64(): st.one_of(st.none(), st.sampled_from([0.0, 1.5, -1.5])),
    pa.list_(pa.string()): st.one_of(st.none(), st.lists(TEXTS, max_size=3)),
    pa.list_(pa.list_(pa.string())): st.lists(st.lists(TEXTS, max_size=2), max_size=3),
    pa.list_(pa.float64(), 2): st.tuples(st.floats(0, 1), st.floats(0, 1)).map(list),
    pa.list_(STRUCT): st.lists(
        st.fixed_dictionaries({"a": TEXTS, "b": st.lists(st.integers(0, 2), max_size=2)}),
        max_size=3,
    ),
}


@pytest.mark.parametrize("type", VALUES, ids=str)
@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_equal_where_the_values_are(type: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES[type], min_size=1, max_size=12))
    array = pa.array(values, type)
    hashes = hashing.of_array(array).tolist()
    for one, left in zip(values, hashes, strict=True):
        for other, right in zip(values, hashes, strict=True):
            assert (left == right) == (one == other), (one, other)
    cut = data.draw(st.integers(0, len(values)))
    assert hashing.of_array(array.slice(cut)).tolist() == hashes[cut:], "of a part as of the whole"


def test_order_and_bounds_of_messages_count() -> None:
    def said(*texts: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text} for text in texts]

    chats = [said("a", "b"), said("b", "a"), said("ab"), said("a", "b", ""), said("a"), said("b")]
    hashes = hashing.of_array(pa.array([*chats, said("a", "b")], MESSAGES)).tolist()
    assert len(set(hashes)) == len(chats)
    assert hashes[0] == hashes[-1]


def test_an_item_counts_by_its_list_and_by_its_place_in_it() -> None:
    lists = pa.array([[[0, 0], [1, 1]], [[0, 1], [0, 1]], [[0, 1], [1, 0]]])
    assert len(set(hashing.of_array(lists).tolist())) == 3


def test_a_field_counts_by_the_object_it_stands_in() -> None:
    def nested(*values: int) -> dict[str, dict[str, int]]:
        a, b, c, d = values
        return {"x": {"m": a, "n": b}, "y": {"m": c, "n": d}}

    objects = pa.array([nested(1, 2, 3, 4), nested(1, 3, 2, 4), nested(1, 2, 3, 4)])
    first, second, third = hashing.of_array(objects).tolist()
    assert first == third
    assert first != second


def test_columns_are_not_exchangeable() -> None:
    left, right = hashing.of_values(["a", "b"]), hashing.of_values(["b", "a"])
    assert np.unique(hashing.of_columns([left, right], 2)).size == 2
