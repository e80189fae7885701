"""Every code that the service can give is explained in docs/errors.md or docs/data.md."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "models", "api", "worker", "training")
GIVEN = re.compile(r"""\bcode(?:, status, kind)?\s*=\s*(?:f?"([a-z_]+)")""")
NOT_SHOWN = {"lease_lost"}
"""Codes that never leave the process."""


def test_every_code_is_documented() -> None:
    given = {
        code
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for code in GIVEN.findall(path.read_text())
    }
    documented = {
        code
        for name in ("errors.md", "data.md")
        for code in re.findall(r"`([a-z_]+)`", (ROOT / "docs" / name).read_text())
    }
    assert len(given) > 40
    assert given - NOT_SHOWN - documented == set()
