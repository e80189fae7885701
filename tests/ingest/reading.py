"""Preparing bytes as a file, and reading back what became of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import BadData
from ingest.prepare import Prepared, prepare


def ingest(tmp_path: Path, content: str | bytes, **options: Any) -> tuple[Prepared, list[Any]]:
    source = tmp_path / "upload"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    out = tmp_path / "out.arrow"
    options = {"role": "training", "task": "text-classification"} | options
    prepared = prepare(source, out=out, **options)
    with pa.memory_map(str(out)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    assert table.num_rows == prepared.rows
    assert hashlib.sha256(out.read_bytes()).hexdigest() == prepared.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.arrow", "upload"]
    return prepared, table.to_pylist()


def refused(tmp_path: Path, content: str | bytes, **options: Any) -> BadData:
    with pytest.raises(BadData) as caught:
        ingest(tmp_path, content, **({"name": "train.jsonl"} | options))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["upload"], "a refused file leaves nothing behind"
    return caught.value
