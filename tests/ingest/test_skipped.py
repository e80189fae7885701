"""Every row that `skip_invalid` leaves out is in a file of its own, as the user wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadData
from ingest.child import prepare_limited
from ingest.limits import Limits
from ingest.skipped import RAW_CHARACTERS
from tests.ingest.make import image, lines, parquet


def skipped(tmp_path: Path, content: bytes, **options: Any) -> list[dict[str, Any]]:
    source, out = tmp_path / "upload", tmp_path / "skipped.jsonl"
    source.write_bytes(content)
    options = {"task": "text-classification", "skip_invalid": 0.05} | options
    prepared = prepare_limited(
        source,
        out=tmp_path / "out",
        role="training",
        name="train.jsonl",
        skipped_out=out,
        **options,
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    assert len(rows) == prepared.report["skipped"]["rows"]
    return rows


def good(many: int) -> list[dict[str, Any]]:
    return [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(many)]


def test_rows_with_their_places_and_all_that_is_wrong(tmp_path: Path) -> None:
    bad = {"text": "", "label": 1.5, "more": [1]}
    content = lines(*good(60), bad, *good(60)) + b'{"text": "a\xff"\n'
    rows = skipped(tmp_path, content)
    first, last = sorted(rows, key=lambda row: row["line"])
    assert (first["line"], last["line"]) == (61, 122)
    assert first["raw"] == bad
    assert [(told["code"], told["column"]) for told in first["problems"]] == [
        ("empty_text", "text"),
        ("wrong_type", "label"),
    ]
    assert last["raw"] == '{"text": "a\\xff"'
    assert last["problems"][0]["code"] == "invalid_encoding"
    assert all(told["message"] and told["hint"] for row in rows for told in row["problems"][:1])
    assert {row["file"] for row in rows} == {"train.jsonl"}


def test_all_of_them_beyond_the_cap_of_the_report(tmp_path: Path) -> None:
    rows = [row | {"text": ""} if n % 25 == 0 else row for n, row in enumerate(good(1000))]
    found = skipped(tmp_path, lines(*rows), limits=Limits(max_problems=5, block_bytes=1000))
    assert [row["line"] for row in found] == [n + 1 for n in range(0, 1000, 25)]


def test_what_json_cannot_hold(tmp_path: Path) -> None:
    rows = [{"image": image(colour=n), "label": "ab"[n % 2]} for n in range(40)]
    rows[7] = {"image": b"no image", "label": "a"}
    (found,) = skipped(tmp_path, parquet(rows), task="image-classification")
    assert (found["row"], found["line"]) == (8, None)
    assert found["raw"] == {"image": "8 bytes", "label": "a"}


def test_long_rows_are_cut(tmp_path: Path) -> None:
    rows = [*good(40), {"text": "x" * 100_000, "label": None}]
    (found,) = skipped(tmp_path, lines(*rows))
    assert len(found["raw"]) == RAW_CHARACTERS
    assert found["raw"].startswith('{"text":"xxx')


def test_no_file_where_nothing_is_skipped_or_all_is_refused(tmp_path: Path) -> None:
    assert skipped(tmp_path, lines(*good(10))) == []
    with pytest.raises(BadData):
        skipped(tmp_path, lines(*good(3), {"text": ""}))
    assert not (tmp_path / "skipped.jsonl").exists()
