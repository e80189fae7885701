"""Cleaning does what was asked, counts it, and changes nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import Unprocessable
from ingest import tasks
from ingest.clean import Choices, Cleaned, clean
from ingest.prepare import prepare
from tests.ingest.make import lines


def cleaned(
    tmp_path: Path, rows: list[dict[str, Any]], task: str = "text-classification", **choices: Any
) -> tuple[Cleaned, list[Any], list[Any]]:
    source, prepared = tmp_path / "upload", tmp_path / "prepared.arrow"
    source.write_bytes(lines(*rows))
    prepare(source, task, out=prepared, role="training")
    out, valid = tmp_path / "train.arrow", tmp_path / "valid.arrow"
    done = clean(prepared, tasks.get(task), Choices(**choices), out, valid)
    return done, read(out), read(valid) if valid.exists() else []


def read(path: Path) -> list[Any]:
    with pa.memory_map(str(path)) as source:
        return list(pa.ipc.open_file(source).read_all().to_pylist())


ROWS = [{"text": f"text {n}", "label": "abc"[n % 3 if n < 30 else 0]} for n in range(60)]


def test_nothing_asked_nothing_done(tmp_path: Path) -> None:
    done, train, valid = cleaned(tmp_path, [*ROWS, ROWS[0], {"text": " x ", "label": "a"}])
    assert (done.rows, len(train), valid, done.report) == (62, 62, [], {})
    assert train == read(tmp_path / "prepared.arrow")


def test_trim_and_normalize(tmp_path: Path) -> None:
    rows = [{"text": " ﬁne\n", "label": "a"}, {"text": "cafe\u0301", "label": "a "}, ROWS[1]]
    done, train, _ = cleaned(tmp_path, rows, trim=True, normalize="NFKC")
    assert [row["text"] for row in train] == ["fine", "café", "text 1"]
    assert done.labels == ["a", "b"]
    assert done.report == {"trimmed": 2, "normalized": 2}


def test_contexts_keep_their_characters(tmp_path: Path) -> None:
    row = {"context": "  Ada was here. ", "question": " Who? ", "answer": "Ada"}
    _, train, _ = cleaned(tmp_path, [row], task="question-answering", trim=True)
    assert train[0]["context"] == "  Ada was here. "
    assert train[0]["question"] == "Who?"


def test_repeats_are_left_out_after_trimming(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": "text 7 ", "label": "c"}, ROWS[3]]
    done, train, _ = cleaned(tmp_path, rows, trim=True, dedupe=True)
    assert [row["id"] for row in train] == list(range(1, 61))
    assert done.report == {"trimmed": 1, "duplicates_left_out": 2}


def test_split_is_stratified_and_repeatable(tmp_path: Path) -> None:
    done, train, valid = cleaned(tmp_path, ROWS, split=0.2, seed=3)
    assert Counter(row["label"] for row in valid) == {"a": 8, "b": 2, "c": 2}
    assert sorted(row["id"] for row in train + valid) == list(range(1, 61))
    assert (done.valid_rows, done.report["split_off"]) == (12, 12)
    again, _, _ = cleaned(tmp_path, ROWS, split=0.2, seed=3)
    other, _, _ = cleaned(tmp_path, ROWS, split=0.2, seed=4)
    assert (again.sha256, again.valid_sha256) == (done.sha256, done.valid_sha256)
    assert other.valid_sha256 != done.valid_sha256


def test_repeats_of_a_row_fall_on_one_side(tmp_path: Path) -> None:
    _, train, valid = cleaned(tmp_path, ROWS * 3, split=0.3)
    assert len(valid) == 3 * len({row["text"] for row in valid})
    assert not {row["text"] for row in train} & {row["text"] for row in valid}


def test_no_label_is_split_off_whole(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": "alone", "label": "d"}]
    _, train, _ = cleaned(tmp_path, rows, split=0.5)
    assert "d" in {row["label"] for row in train}


@pytest.mark.parametrize(("way", "each"), [("undersample", 10), ("oversample", 40)])
def test_balance(tmp_path: Path, way: str, each: int) -> None:
    done, train, _ = cleaned(tmp_path, ROWS, balance=way)
    assert Counter(row["label"] for row in train) == {"a": each, "b": each, "c": each}
    assert done.report["balanced"]["a"] == [40, each]
    often = Counter(row["id"] for row in train if row["label"] == "b")
    assert max(often.values()) - min(often.values()) <= 1


def test_only_training_rows_are_balanced(tmp_path: Path) -> None:
    _, train, valid = cleaned(tmp_path, ROWS, split=0.5, balance="oversample")
    assert Counter(row["label"] for row in train) == {"a": 20, "b": 20, "c": 20}
    assert Counter(row["label"] for row in valid) == {"a": 20, "b": 5, "c": 5}


def test_tasks_without_labels_are_split_but_not_balanced(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}"} for n in range(10)]
    _, train, valid = cleaned(tmp_path, rows, task="fill-mask", split=0.2)
    assert (len(train), len(valid)) == (8, 2)
    with pytest.raises(Unprocessable, match="balance"):
        cleaned(tmp_path, rows, task="fill-mask", balance="oversample")


def test_share_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match="split"):
        cleaned(tmp_path, ROWS, split=0.9)
