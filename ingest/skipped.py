"""The rows that were left out, all of them, as JSON Lines: for the user to mend.

A line is a row, `{file, line, row, entry, problems: [{code, message, hint, column}], raw}`, where
`raw` is the row as the file has it, as far as it can be shown. They come in the order in which they
were found: what cannot be parsed before what is not right, block by block.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import msgspec

RAW_CHARACTERS = 65_536
"""Of a row that is shown; the rest is cut off."""


class SkippedRows:
    """Writes to `path`, which is made when there is a first row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._row: dict[str, Any] | None = None

    def add(self, place: dict[str, Any], problem: dict[str, Any], raw: object) -> None:
        """One problem. Those of one row come one after the other."""
        if self._row is not None and all(self._row[key] == place[key] for key in place):
            self._row["problems"].append(problem)
            return
        self._flush()
        self._row = place | {"problems": [problem], "raw": _shown(raw)}

    def finish(self) -> bool:
        """Whether there is a file."""
        self._flush()
        if self._file is None:
            return False
        self._file.close()
        return True

    def _flush(self) -> None:
        if self._row is None:
            return
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.write(msgspec.json.encode(self._row) + b"\n")
        self._row = None


def _shown(raw: object) -> object:
    """The value as JSON can hold it; its text where that is long or no JSON."""
    if isinstance(raw, bytes):
        raw = raw[:RAW_CHARACTERS].decode("utf-8", "backslashreplace")
    if not isinstance(raw, str):
        try:
            text = msgspec.json.encode(_counted(raw))
        except (TypeError, ValueError, RecursionError):
            raw = repr(raw)
        else:
            if len(text) <= RAW_CHARACTERS:
                return msgspec.Raw(text)
            raw = text.decode()
    clean = raw.encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= RAW_CHARACTERS else clean[: RAW_CHARACTERS - 1] + "…"


def _counted(value: Any) -> Any:
    """The value with its bytes, such as an image's, counted instead of shown."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        return {key: _counted(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_counted(member) for member in value]
    return value
