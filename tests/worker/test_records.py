"""A trainer's records, as they come out of its pipe."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from worker.trainer import Trainer


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("no NUL", "no NUL"),
        ("a path C:\\u0000x", "a path C:\\u0000x"),
    ],
)
def test_what_the_database_cannot_hold_is_replaced(text: str, kept: str) -> None:
    """As a model may well write it, and a library's error quote it."""
    trainer = Trainer.__new__(Trainer)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as trainer._records:
        trainer._rest = b""
        record: dict[str, Any] = {"type": "log", "message": text, "data": {text: [text]}}
        os.write(writer, json.dumps(record).encode() + b"\n")
        os.close(writer)
        assert list(trainer.read(1)) == [{"type": "log", "message": kept, "data": {kept: [kept]}}]
