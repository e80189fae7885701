"""The limited child gives what `prepare` gives, and no file harms the process that asked."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import BadData, Unprocessable
from ingest.child import Allowance, prepare_limited
from ingest.describe import describe
from ingest.limits import Limits
from ingest.prepare import prepare
from tests.ingest.make import lines, parquet

GOOD = lines({"text": "fine", "label": "pos"}, {"text": "dull", "label": "neg"})


def limited(tmp_path: Path, content: bytes, **options: Any) -> Any:
    source = tmp_path / "upload"
    source.write_bytes(content)
    options = {"out": tmp_path / "out.arrow", "role": "training", "name": "train.jsonl"} | options
    return prepare_limited(source, "text-classification", **options)


def refused(tmp_path: Path, content: bytes, **options: Any) -> BadData:
    with pytest.raises(BadData) as caught:
        limited(tmp_path, content, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["upload"]
    return caught.value


def test_the_child_answers_as_prepare_does(tmp_path: Path) -> None:
    prepared = limited(tmp_path, GOOD)
    source, out = tmp_path / "upload", tmp_path / "direct.arrow"
    direct = prepare(source, "text-classification", out=out, role="training", name="train.jsonl")
    assert prepared == describe(direct, out, "training")


def test_errors_come_through_whole(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD + b"{\n")
    assert str(error).startswith("train.jsonl line 3: not valid JSON")
    assert (error.error_code, error.param) == ("invalid_json", "training_file")
    assert error.details[0]["line"] == 3
    with pytest.raises(Unprocessable, match="column_mapping"):
        limited(tmp_path, GOOD, column_mapping={"text": "txet"})


def test_memory_is_limited(tmp_path: Path) -> None:
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 1024), pa.array(["x" * 1_000_000]))
    bomb = parquet(pa.table({"text": once, "label": ["a"] * 1024}))
    assert len(bomb) < 4_000_000, "a dictionary makes a gigabyte of text small"
    error = refused(tmp_path, bomb, allowance=Allowance(memory_bytes=1024**3))
    assert error.error_code == "resource_limit"
    assert "memory" in str(error)


def test_processor_time_is_limited(tmp_path: Path) -> None:
    many = b'{"text": "some text to read", "label": "a"}\n' * 2_000_000
    error = refused(tmp_path, many, allowance=Allowance(cpu_seconds=1))
    assert error.error_code == "resource_limit"
    assert "processor time" in str(error)


def test_wall_time_is_limited(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD, allowance=Allowance(wall_seconds=0.01))
    assert error.error_code == "resource_limit"
    assert "took longer" in str(error)


def test_output_is_limited(tmp_path: Path) -> None:
    content = lines(*({"text": "x" * 1000, "label": n % 2} for n in range(2000)))
    error = refused(tmp_path, content, allowance=Allowance(output_bytes=1_000_000))
    assert error.error_code == "resource_limit"


def test_limits_reach_the_child(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD, limits=Limits(max_line_bytes=10))
    assert error.error_code == "line_too_long"


def test_the_child_ends_with_its_parent_and_knows_no_secret(tmp_path: Path) -> None:
    """A FIFO keeps the child waiting for its source; then its parent is killed."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        "import sys; from pathlib import Path; from ingest.child import prepare_limited;"
        f"prepare_limited(Path({str(fifo)!r}), 'fill-mask', out=Path({str(tmp_path / 'o')!r}),"
        "role='training')"
    )
    environment = os.environ | {"LUTHIER_SECRET": "not for children"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        child = _wait_for_child(parent.pid)
        assert b"LUTHIER_SECRET" not in Path(f"/proc/{child}/environ").read_bytes()
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child}/stat").exists():
            state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "Z":
                break
            assert time.monotonic() < deadline, "the child lives on"
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()


def _wait_for_child(parent: int) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if children:
            # Long enough after its start to have read the request.
            time.sleep(1.5)
            return int(children[0])
        time.sleep(0.02)
    raise AssertionError("no child was started")


def test_this_process_keeps_its_own_limits(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    limited(tmp_path, GOOD)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
