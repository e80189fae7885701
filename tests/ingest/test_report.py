"""What the report says about data that is valid but odd, and about rows that were left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import Unprocessable
from ingest.prepare import prepare
from tests.ingest import make
from tests.ingest.reading import ingest, refused


def finding(report: dict[str, Any], code: str) -> dict[str, Any]:
    (found,) = [item for item in report["findings"] if item["code"] == code]
    return dict(found)


def codes(report: dict[str, Any]) -> set[str]:
    return {item["code"] for item in report["findings"]}


CLEAN = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(20))


def test_nothing_odd(tmp_path: Path) -> None:
    assert ingest(tmp_path, CLEAN)[0].report["findings"] == []


def test_repeats_and_contradictions(tmp_path: Path) -> None:
    report = ingest(tmp_path, CLEAN + "text 0,a\ntext 0,b\ntext 1,b\n")[0].report
    repeats = finding(report, "duplicate_rows")
    assert repeats["count"] == 3
    assert repeats["places"] == [{"line": 22}, {"line": 23}, {"line": 24}]
    assert finding(report, "contradictory_rows")["places"] == [{"line": 23}]


def test_repeated_chats(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    report = ingest(tmp_path, make.lines(chat, chat), task="text-generation")[0].report
    assert finding(report, "duplicate_rows")["places"] == [{"line": 2}]


def test_labels_that_differ_in_case_and_blanks(tmp_path: Path) -> None:
    report = ingest(tmp_path, CLEAN + "x,A \ny,once\n")[0].report
    assert "`A `" in finding(report, "label_variants")["message"]
    assert finding(report, "single_example_label")["count"] == 2


def test_leakage(tmp_path: Path) -> None:
    training = tmp_path / "training.arrow"
    source = tmp_path / "training.csv"
    source.write_text(CLEAN)
    prepare(source, "text-classification", out=training, role="training")
    folder = tmp_path / "validation"
    folder.mkdir()
    report = ingest(folder, "text,label\nnew,a\ntext 7,b\n", role="validation", training=training)[
        0
    ].report
    leak = finding(report, "leakage")
    assert (leak["count"], leak["places"]) == (1, [{"line": 3}])


def test_tiny_images(tmp_path: Path) -> None:
    content = make.zipped({"a/1.png": make.image(4, 4), "b/1.png": make.image(40, 40)})
    report = ingest(tmp_path, content, task="image-classification")[0].report
    assert finding(report, "tiny_images")["count"] == 1


def test_profile(tmp_path: Path) -> None:
    report = ingest(tmp_path, "text,label\nabc,x\nпривет,y\nabcdefghij,y\n")[0].report
    found = report["profile"]
    assert found["rows"] == 3
    assert found["characters"]["text"] | {"p5": 0, "p95": 0, "p99": 0} == {
        "min": 3.0, "p5": 0, "p50": 6.0, "p95": 0, "p99": 0, "max": 10.0, "mean": 6.333, "sum": 19.0
    }  # fmt: skip
    assert found["scripts"].keys() == {"LATIN", "CYRILLIC"}
    assert [row["text"] for row in found["samples"]] == ["abc", "привет", "abcdefghij"]
    assert report["labels"] == {"x": 1, "y": 2}


def test_profile_of_recordings(tmp_path: Path) -> None:
    content = make.zipped({"a/1.wav": make.sound(0.5), "b/1.wav": make.sound(1.0, rate=16000)})
    found = ingest(tmp_path, content, task="audio-classification")[0].report["profile"]
    assert found["numbers"]["seconds"]["sum"] == 1.5
    assert found["sampling_rates"] == {"8000": 1, "16000": 1}
    assert found["samples"][0]["audio"].endswith("bytes")


def test_bad_rows_within_the_budget_are_left_out_and_listed(tmp_path: Path) -> None:
    content = CLEAN + "no label,\n"
    refused(tmp_path, content)
    prepared, rows = ingest(tmp_path, content, skip_invalid=0.05)
    assert len(rows) == 20
    skipped = prepared.report["skipped"]
    assert skipped["rows"] == 1
    assert (skipped["problems"][0]["line"], skipped["problems"][0]["code"]) == (22, "missing_value")


def test_a_row_with_two_problems_is_one_bad_row(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(19)]
    bad = {"text": 5, "label": 0.5}
    prepared, _ = ingest(tmp_path, make.lines(*rows, bad), skip_invalid=0.05)
    assert prepared.report["skipped"]["rows"] == 1
    assert len(prepared.report["skipped"]["problems"]) == 2


def test_bad_rows_beyond_the_budget(tmp_path: Path) -> None:
    refused(tmp_path, CLEAN + "no label,\n ,\n", skip_invalid=0.05)


def test_the_budget_covers_no_problem_of_the_whole_file(tmp_path: Path) -> None:
    content = "text,label\n" + "t,a\n" * 30
    assert refused(tmp_path, content, skip_invalid=0.05).error_code == "one_class"


def test_budget_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match="skip_invalid"):
        ingest(tmp_path, CLEAN, skip_invalid=0.5)
