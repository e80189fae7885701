"""Cleaning in the limited child: prepared data comes out, or an error says why it cannot."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import LuthierError
from ingest.child import prepare_limited
from ingest.clean import Choices


def test_cleaning_is_done_in_the_child_too(tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    rows = [f" text {n % 20} ,{'ab'[n % 2]}" for n in range(40)]
    source.write_text("text,label\n" + "\n".join(rows) + "\n")
    choices = Choices(trim=True, dedupe=True, split=0.2, seed=3)
    prepared = prepare_limited(
        source,
        "text-classification",
        out=tmp_path / "train.arrow",
        role="training",
        cleaning=choices,
        valid_out=tmp_path / "valid.arrow",
    )
    train, valid = (table(tmp_path / f"{name}.arrow") for name in ("train", "valid"))
    texts = train["text"].to_pylist() + valid["text"].to_pylist()
    assert sorted(texts) == sorted({f"text {n}" for n in range(20)})
    assert (train.num_rows, valid.num_rows) == (prepared.rows, 4)
    assert Counter(valid["label"].to_pylist()) == {"a": 2, "b": 2}
    assert prepared.split_off is not None
    for name, sha256 in (("train", prepared.sha256), ("valid", prepared.split_off.sha256)):
        content = (tmp_path / f"{name}.arrow").read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
    report = prepared.report["cleaning"]
    assert (report["trimmed"], report["duplicates_left_out"], report["rows"]) == (40, 20, 16)
    assert not list(tmp_path.glob(".*"))


def test_cleaning_that_leaves_too_little_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    source.write_text("text,label\nsame,a\nsame,b\n")
    for choices, code in (
        (Choices(dedupe=True), "one_class"),
        (Choices(split=0.1), "invalid_value"),
    ):
        with pytest.raises(LuthierError) as caught:
            prepare_limited(
                source,
                "text-classification",
                out=tmp_path / "train.arrow",
                role="training",
                cleaning=choices,
            )
        assert caught.value.error_code == code


def table(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
