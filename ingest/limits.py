"""What a data file may cost. A file beyond a limit is refused with its place; nothing is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    max_line_bytes: int = 16 * 1024**2
    """One line of text, one CSV record over all of its lines, one element of a JSON list."""
    max_columns: int = 1000
    max_sentence_words: int = 100_000
    max_problems: int = 100
    """Problems kept with their places. Those beyond are counted."""
    block_bytes: int = 512 * 1024
    """Of a text file, read and checked at once."""
    batch_rows: int = 4096
    batch_bytes: int = 8 * 1024**2
    """Input bytes that stand in memory as rows at one time (one row may exceed it)."""
    parquet_batch_rows: int = 1024
    media_batch_rows: int = 16
    """Rows that bring an image or a recording with them."""

    max_unpacked_bytes: int = 64 * 1024**3
    """What a compressed file or an archive may come to."""
    max_ratio: int = 200
    """Unpacked bytes for each packed byte, beyond the first `ratio_free_bytes`."""
    ratio_free_bytes: int = 16 * 1024**2
    max_entries: int = 2_000_000
    max_entry_bytes: int = 1024**3
    """One image, one recording, one data file that is held as a whole."""
    max_document_bytes: int = 256 * 1024**2
    """COCO's JSON, which is held as a whole."""
    max_pixels: int = 100_000_000
    max_seconds: float = 3600.0
    """The length of one recording."""

    def with_batch_rows(self, rows: int) -> Limits:
        return replace(self, batch_rows=min(rows, self.batch_rows))
