"""Data that people made, through the check and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from examples import reviews
from ingest.child import prepare_limited
from models.catalogue import PACKAGED
from tests.ingest.real_data import SENTENCES, digits, sentences, translations
from tests.ingest.test_report import codes, finding

pytestmark = pytest.mark.slow


def checked(tmp_path: Path, content: bytes, **options: Any) -> dict[str, Any]:
    """The report on a file whose task is told from it, as the service would make it."""
    source = tmp_path / "upload"
    source.write_bytes(content)
    prepared = prepare_limited(
        source, None, out=tmp_path / "out.arrow", role="training", name="upload", **options
    )
    return prepared.report


def test_reviews(tmp_path: Path) -> None:
    train, _ = reviews.fetch(tmp_path / "reviews")
    model = PACKAGED["all-MiniLM-L6-v2"].path()
    report = checked(tmp_path, train.read_bytes(), model=model)
    assert (report["task"], report["format"]) == ("text-classification", "csv")
    assert report["rows"] == reviews.ROWS - reviews.HELD_OUT
    assert set(report["labels"]) == {"positive", "negative"}
    assert next(iter(report["profile"]["languages"]["text"])) == "en"
    tokens = report["profile"]["tokens"]
    assert tokens["rows_counted"] == report["rows"]
    assert 15 < tokens["tokens"]["p50"] < 40
    assert "rows_too_long" not in codes(report)
    assert len(report["profile"]["seen"]) == 10


def test_translations(tmp_path: Path) -> None:
    content, count = translations(tmp_path)
    report = checked(tmp_path, content, skip_invalid=0.05)
    assert (report["task"], report["shape"]) == ("translation", "translation")
    assert report["rows"] + report["skipped"]["rows"] == count > 250
    languages = report["profile"]["languages"]
    assert next(iter(languages["source"])) == "en"
    assert next(iter(languages["target"])) == "de"


def test_digits(tmp_path: Path) -> None:
    report = checked(tmp_path, digits())
    assert (report["task"], report["format"]) == ("image-classification", "zip/class_folders")
    assert (report["rows"], len(report["labels"])) == (1797, 10)
    assert sum(report["labels"].values()) == 1797
    assert report["profile"]["numbers"]["width"]["max"] == 8
    assert finding(report, "tiny_images")["count"] == 1797


def test_speech(tmp_path: Path) -> None:
    report = checked(tmp_path, sentences(tmp_path))
    assert report["task"] == "automatic-speech-recognition"
    assert report["profile"]["sampling_rates"] == {"22050": len(SENTENCES)}
    assert 1 < report["profile"]["numbers"]["seconds"]["p50"] < 6
    assert codes(report) == set(), "nothing is silent, clipped or too fast"
