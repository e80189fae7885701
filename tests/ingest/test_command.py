"""`python -m ingest` and `luthier data check`: a report in the terminal, with no server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ingest.__main__ import check
from ingest.terminal import show
from tests.ingest.make import lines
from tests.ingest.test_describe import CHAT, MARKED

ROWS = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]


def run(*arguments: str | Path) -> Result:
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(check, given, standalone_mode=False)


def given(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_bytes(lines(*rows))
    return path


def test_a_good_file(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": "", "label": "a"}, {"text": "text 1", "label": "a"}]
    skipped = tmp_path / "skipped.jsonl"
    result = run(given(tmp_path, *rows), "--skip-invalid", "0.05", "--skipped-out", skipped)
    assert result.return_value == 0, result.output
    for says in (
        "train.jsonl: 41 rows for text-classification",
        "2 labels",
        "1 rows are left out",
        "line 41, column `text`: the text is empty",
        "contradictory_rows",
        "The data can be trained on.",
    ):
        assert says in result.output
    assert json.loads(skipped.read_text())["line"] == 41


def test_a_bad_file(tmp_path: Path) -> None:
    result = run(given(tmp_path, *ROWS, {"text": "\x1b[2J", "label": ""}), "--task", "fill-mask")
    assert result.return_value == 0
    result = run(given(tmp_path, *ROWS, {"text": "\x1b[2J", "label": ""}))
    assert result.return_value == 1
    assert "train.jsonl, line 41, column `label`: no label" in result.output
    assert "\x1b[2J" not in result.output, "a file does not command the terminal"


def test_the_whole_report_as_json(tmp_path: Path) -> None:
    told = json.loads(run(given(tmp_path, *ROWS), "--json").stdout)
    assert told["training"]["rows"] == 40
    assert len(told["training"]["profile"]["samples"]) == 10
    result = run(given(tmp_path, {"a": 1}), "--json", "--task", "translation")
    assert json.loads(result.stdout)["error"]["code"] == "missing_columns"
    assert result.return_value == 1


def test_validation_data_and_mappings(tmp_path: Path) -> None:
    rows = [{"said": row["text"], "mood": row["label"]} for row in ROWS]
    mapping = ("--mapping", "text=said", "--mapping", "label=mood")
    options = ("--task", "text-classification", *mapping)
    train = given(tmp_path, *rows)
    valid = tmp_path / "valid.jsonl"
    valid.write_bytes(lines({"said": "text 3", "mood": "b"}))
    result = run(train, *options, "--validation", valid)
    assert result.return_value == 0, result.output
    assert "leakage: 1 of 1 validation rows are training rows too" in result.output
    valid.write_bytes(lines({"said": "new", "mood": "c"}))
    result = run(train, *options, "--validation", valid)
    assert result.return_value == 1
    assert "valid.jsonl, line 1, column `mood`" in result.output
    assert "write it as NAME=COLUMN" in str(run(train, "--mapping", "text").exception)


def test_rows_as_the_model_sees_them(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": MARKED, "eos_token": "</s>", "bos_token": "<s>"})
    )
    result = run(given(tmp_path, {"messages": CHAT}), "--model", model)
    assert "[Capital of France?]«Paris.</s>»" in result.output


def test_an_error_without_places(capsys: pytest.CaptureFixture[str]) -> None:
    show({"error": {"code": "x", "message": "Give a task.", "param": None, "details": []}})
    assert capsys.readouterr().out == "Give a task.\n"


def test_the_clients_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "luthier", "data", "check"]
    told = subprocess.run(
        [*command, given(tmp_path, *ROWS), "--task", "text-classification"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "40 rows for text-classification" in told.stdout
    told = subprocess.run(
        [*command, given(tmp_path, {"text": ""}), "--task", "fill-mask", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert json.loads(told.stdout)["error"]["code"] == "empty_text"
