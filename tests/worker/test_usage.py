"""What a machine's own command says of its GPUs, as odd as it may be."""

from __future__ import annotations

import logging

import pytest

from worker.usage import MIB, parse


def test_lines_that_are_not_understood_are_left_out_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = "WARNING: infoROM is corrupted at gpu 0000:00:04.0"
    told = f"{odd}\n0, 1024, nan, [N/A]\n\nNo devices, were found\n"
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            gpus = parse(told)
    assert gpus == [
        {"index": 0, "used_bytes": 1024 * MIB, "total_bytes": None, "utilization": None}
    ]
    assert sum(odd in record.getMessage() for record in caplog.records) == 1
