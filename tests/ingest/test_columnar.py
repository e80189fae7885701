"""The fast way by columns gives what the way by rows gives, and leaves to it what it must."""

from __future__ import annotations

from typing import Any

import pytest

from ingest import columnar, tasks
from ingest.check import Checker
from ingest.columns import bind
from ingest.limits import Limits
from ingest.parsers import Batch
from ingest.problems import Problems

GOOD = {"text": "fine", "label": "pos"}


def checker(rows: list[dict[str, Any]], task: str = "text-classification") -> Checker:
    problems = Problems("train.jsonl", "training_file", 100)
    format = tasks.get(task)
    found = list(dict.fromkeys(name for row in rows for name in row))
    shape, binding = bind(format, found, Batch([], rows), None, problems)
    return Checker(format, shape, binding, problems, Limits(), None, None)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("text-classification", [GOOD, {"text": "é 😀", "label": "neg"}]),
        ("text-classification", [{"text": "a", "label": 1}, {"text": "b", "label": 0}]),
        ("text-classification", [GOOD | {"text_pair": None}, GOOD | {"text_pair": "other"}]),
        ("text-classification", [{"text": "a", "target": 1}, {"text": "b", "target": 0.5}]),
        ("translation", [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]),
        ("summarization", [{"document": "a", "summary": "b"}]),
        ("fill-mask", [{"text": "a"}, {"text": "b"}]),
        ("text-generation", [{"text": "a"}, {"text": "b"}]),
    ],
)
def test_both_ways_give_the_same(task: str, rows: list[dict[str, Any]]) -> None:
    batch = Batch(list(range(5, 5 + len(rows))), rows)
    fast, slow = checker(rows, task), checker(rows, task)
    slow.columnar = False
    assert columnar.take(range(len(rows)), rows, fast.binding) is not None, (
        "this is a case for the fast way"
    )
    left, right = fast.table(batch), slow.table(batch)
    assert left is not None
    assert left.equals(right, check_metadata=True)
    assert fast.labels == slow.labels
    for one, other in zip(fast.hashes.all(), slow.hashes.all(), strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize(
    "odd",
    [
        {"text": "", "label": "x"},
        {"text": "\u3000", "label": "x"},
        {"text": "a\x00", "label": "x"},
        {"text": None, "label": "x"},
        {"text": b"a", "label": "x"},
        {"text": 5, "label": "x"},
        {"label": "x"},
        {"text": "a"},
        {"text": "a", "label": " "},
        {"text": "a", "label": None},
        {"text": "a", "label": True},
        {"text": "a", "label": 1.0},
        {"text": "a", "label": ["x"]},
        GOOD | {"text_pair": ""},
        GOOD | {"text_pair": 5},
    ],
    ids=repr,
)
def test_what_is_odd_goes_row_by_row(odd: dict[str, Any]) -> None:
    rows = [GOOD, GOOD | {"text_pair": "other"}]
    check = checker(rows)
    assert columnar.take(range(len(rows)), rows, check.binding) is not None
    assert columnar.take(range(len(rows) + 1), [*rows, odd], check.binding) is None


@pytest.mark.parametrize("target", [float("nan"), float("inf"), 10**400, True, "1", None])
def test_odd_numbers(target: Any) -> None:
    rows = [{"text": "a", "target": 0.5}]
    check = checker(rows)
    assert columnar.take(range(2), [*rows, {"text": "b", "target": target}], check.binding) is None


def test_bool_and_int_labels_do_not_mix() -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": True}]
    assert columnar.take(range(len(rows)), rows, checker(rows).binding) is None
