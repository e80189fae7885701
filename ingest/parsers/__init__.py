"""One parser a format. Each gives the rows of a file in batches, in order, with their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.columnar import Columns


@dataclass(slots=True)
class Batch:
    """Rows as the file has them: column names and values are the user's."""

    places: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    entries: list[str] | None = None
    """For each row the archive's entry that it was read from."""
    columns: Columns | None = None
    """Rows that were checked as they were read, places and all: `places` and `rows` are empty."""

    def names(self) -> list[str]:
        """The columns that the rows name, in the order in which they come."""
        return list(dict.fromkeys(name for row in self.rows for name in row))


Batches = Iterator[Batch]


def split(batch: Batch, rows: int) -> Batches:
    """The batch in parts of at most so many rows."""
    for start in range(0, len(batch.rows), rows):
        end = start + rows
        entries = None if batch.entries is None else batch.entries[start:end]
        yield Batch(batch.places[start:end], batch.rows[start:end], entries)
