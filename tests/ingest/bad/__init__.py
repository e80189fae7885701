"""Files that must be refused: each with the code, the place and the words of its refusal.

Made by code, so that hostile ones harm nobody who has a checkout, and large ones cost no space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingest.limits import Limits


@dataclass(frozen=True)
class Bad:
    name: str
    content: bytes | str
    code: str
    """Of the first problem."""
    at: int | str | None
    """Its line or row, or the archive's entry; None for the file as a whole."""
    says: str
    """In the message."""
    task: str = "text-classification"
    limits: Limits | None = None
    options: tuple[tuple[str, Any], ...] = ()
