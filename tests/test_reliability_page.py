"""docs/reliability.md against the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
TESTS = "".join(path.read_text() for path in (ROOT / "tests" / "faults").glob("test_*.py"))
ROWS = 24


def test_every_fault_has_its_row_and_every_test_named_exists() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, ROWS + 1))
    for number, cell in rows:
        named = re.findall(r"`(test_\w+)`", cell)
        assert named, f"row {number} names no test"
        assert [name for name in named if f"\ndef {name}(" not in TESTS] == []


def test_every_test_of_a_row_is_named() -> None:
    told = re.findall(r"\ndef (test_\w+)\([^\"]*\"\"\"Row", TESTS)
    assert told
    assert [name for name in told if f"`{name}`" not in PAGE] == []
