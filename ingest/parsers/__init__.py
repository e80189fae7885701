"""One parser a format. Each gives the rows of a file in batches, in order, with their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Batch:
    """Rows as the file has them: column names and values are the user's."""

    places: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    entries: list[str] | None = None
    """For each row the archive's entry that it was read from."""


Batches = Iterator[Batch]
