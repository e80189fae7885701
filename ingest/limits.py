"""What a data file may cost. A file beyond a limit is refused with its place; nothing is cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    max_line_bytes: int = 16 * 1024**2
    """One line of text, and one CSV record over all of its lines."""
    max_columns: int = 1000
    max_problems: int = 100
    """Problems kept with their places. Those beyond are counted."""
    batch_rows: int = 4096
    batch_bytes: int = 8 * 1024**2
    """Input bytes that stand in memory as rows at one time (one row may exceed it)."""
