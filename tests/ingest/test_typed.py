"""Whole blocks of JSON Lines give what the same lines give one by one, problems included."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import BadData
from ingest.limits import Limits
from ingest.prepare import prepare
from ingest.typed import TypedLines
from tests.ingest.make import lines

GOOD = {"text": "fine", "label": "pos"}
CHAT = {"messages": [{"role": "user", "content": "a: b"}, {"role": "assistant", "content": ""}]}
SMALL = Limits(block_bytes=200)


def outcome(content: bytes, task: str, **options: Any) -> tuple[Any, int]:
    """What became of the content, and how many rows the fast way read of it."""
    read = 0
    columns = TypedLines.columns

    def counting(self: TypedLines, first: int, block: bytes) -> Any:
        nonlocal read
        found = columns(self, first, block)
        read += 0 if found is None else block.count(b"\n") + 1
        return found

    with tempfile.TemporaryDirectory() as folder, patch.object(TypedLines, "columns", counting):
        source, out = Path(folder) / "train.jsonl", Path(folder) / "out.arrow"
        source.write_bytes(content)
        try:
            prepared = prepare(source, task, out=out, **({"role": "training"} | options))
        except BadData as error:
            return (str(error), error.code, error.details), read
        with pa.memory_map(str(out)) as mapped:
            rows = pa.ipc.open_file(mapped).read_all().to_pylist()
        report = prepared.report
        report["profile"].pop("bytes")  # of how many batches there are
        return (rows, prepared.labels, report), read


def compared(content: bytes, task: str = "text-classification", **options: Any) -> int:
    """Both ways must agree; the number of rows that the fast one read."""
    fast, read = outcome(content, task, limits=SMALL, **options)
    with patch.object(TypedLines, "expect"):
        slow, none = outcome(content, task, limits=SMALL, **options)
    assert none == 0
    assert fast == slow
    return read


def test_most_rows_go_the_fast_way() -> None:
    rows = [GOOD | {"text": f"row {n}: é", "label": str(n % 3)} for n in range(200)]
    assert compared(lines(*rows)) > 150
    spare = [row | {"id": n, "from": None} for n, row in enumerate(rows)]
    assert compared(lines(*spare)) > 150
    assert compared(lines(*([CHAT] * 50)), "text-generation") > 40
    assert compared(lines(*rows), "fill-mask") > 150
    pairs = [row | {"text_pair": None if n % 2 else "x"} for n, row in enumerate(rows)]
    assert compared(lines(*pairs)) > 150
    numbers = [{"text": "x", "target": n / 7} for n in range(100)]
    assert compared(lines(*numbers)) > 70
    crlf = lines(*rows).replace(b"\n", b"\r\n")
    assert compared(crlf) > 150


@pytest.mark.parametrize(
    "odd",
    [
        b'{"text": "a", "label": "x", "label": "y"}',
        b'{"text": "a", "label": "x", "label": "\\u003a"}',
        b'{"text": "a\\u003a", "label": "x"}',
        b'{"text": "a", "label": "x", "id": 1, "id": 2}',
        b'{"text": "a", "label": "x"}{"text": "b", "label": "y"}',
        b'{"text": "a", "label": "x"} {"text": "b", "label": "y"}\n',
        b'{"text": "a",\n"label": "x"}{"text": "b", "label": "y"}',
        b'{"text": {"a": 1}\n, "label": "x"}{"text": "b", "label": "y"}',
        b"",
        b"   ",
        b'{"text": "a", "label": "x", "more": 1}',
        b'{"text": "a", "label": "x", "id": {"a": 1, "a": 2}}',
        b'{"text": "a", "label": 1}',
        b'{"text": "a", "label": 1.0}',
        b'{"text": "a", "label": true}',
        b'{"text": "a"}',
        b'{"label": "x"}',
        b'{"text": "", "label": "x"}',
        b'{"text": "\\u2003", "label": "x"}',
        b'{"text": "\\u0000", "label": "x"}',
        b'{"text": "a\x00", "label": "x"}',
        b'{"text": "\xff", "label": "x"}',
        b'{"text": "\\ud800", "label": "x"}',
        b'{"text": "a", "label": " "}',
        b'["text"]',
        b'{"text": "a", "label": "x"',
        b'{"text": "a", "label": 1e999}',
        b"\xef\xbb\xbf" + b'{"text": "a", "label": "x"}',
    ],
)
@pytest.mark.parametrize("skip", [0, 0.05])
def test_one_odd_line_among_good_ones(odd: bytes, skip: float) -> None:
    good = [json.dumps(GOOD | {"id": n, "label": "ab"[n % 2]}).encode() for n in range(60)]
    read = compared(b"\n".join([*good[:40], odd, *good[40:]]), skip_invalid=skip)
    assert read > 30, "the blocks beside it go the fast way"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\x00", "", "é:", "class", "c0"])
def test_columns_of_any_name(name: str) -> None:
    compared(lines(*(GOOD | {name: n, "label": "ab"[n % 2]} for n in range(40))))


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": None}]},
        {"messages": [{"role": "assistant", "content": "a", "weight": 0}]},
        {"messages": [{"role": "assistant", "content": "a", "name": None}]},
        {"messages": [{"role": "robot", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"from": "gpt", "value": "a"}]},
        {"messages": None},
        CHAT | {"tools": []},
        CHAT | {"more": 1},
    ],
    ids=repr,
)
def test_one_odd_chat_among_good_ones(odd: Any) -> None:
    assert compared(lines(*[CHAT] * 20, odd, *[CHAT] * 20), "text-generation") > 20


def test_labels_of_the_training_data() -> None:
    rows = [GOOD | {"label": "xyz"[n % 3]} for n in range(60)]
    options = {"role": "validation", "labels": ["x", "y"]}
    compared(lines(*rows), **options)
    assert compared(lines(*(row for row in rows if row["label"] != "z")), **options) > 20


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just("a:b")
)
TEXTS = st.one_of(st.text(min_size=1, max_size=12), SCALARS)
LABELS = st.one_of(st.sampled_from(["a", "b", "c: d"]), SCALARS)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """Lines as people write them: most of them good, some of them anything."""
    ascii, end = draw(st.booleans()), draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"]))
    spare = draw(st.booleans())

    def row(n: int) -> Iterator[tuple[str, Any]]:
        odd = draw(st.integers(0, 15)) == 0
        yield "text", draw(TEXTS) if odd else f"a text, number {n}: {draw(st.text(max_size=5))}"
        yield "label", draw(LABELS) if odd else "ab"[n % 2]
        if spare:
            yield "more", draw(SCALARS)
        if odd:
            yield draw(st.sampled_from(["text", "label", "other"])), draw(SCALARS)

    def one(n: int) -> str:
        pairs = (
            f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=ascii)}" for key, value in row(n)
        )
        return "{" + ", ".join(pairs) + "}"

    many = draw(st.integers(8, 30))
    return end.join(one(n) for n in range(many)).encode("utf-8", "surrogatepass")


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(content=written(), skip=st.sampled_from([0, 0.05]))
def test_both_ways_agree_on_anything(content: bytes, skip: float) -> None:
    compared(content, skip_invalid=skip)
