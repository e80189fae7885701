"""Problems with places: collected up to a cap, counted beyond it, raised as one `BadData`.

A detail is `{file, line, row, entry, column, code, message, hint, sample}`. Codes are stable and
documented in docs/data.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import BadData
from ingest.skipped import SkippedRows

SAMPLE_CHARACTERS = 120


class BadValue(Exception):
    """A value, or a row, that the task cannot take. The caller knows the place."""

    def __init__(self, code: str, message: str, hint: str = "", column: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.column = column


@dataclass(frozen=True, slots=True)
class Problem:
    code: str
    message: str
    """Continues the place, as in "not valid JSON": no capital, no full stop."""
    hint: str = ""
    """A sentence that says what to do next."""
    place: int | None = None
    """Line or row, from 1; None for the file as a whole."""
    column: str | None = None
    """The column's name in the file."""
    entry: str | None = None
    """The member of an archive."""
    sample: str | None = None


class Problems:
    """What is wrong with one file."""

    def __init__(self, file: str, param: str, cap: int) -> None:
        self.file = file
        self.param = param
        self.cap = cap
        self.unit: Literal["line", "row", "entry"] = "line"
        """What `place` counts. A parser says "row" where rows have no lines, and "entry" where
        each is a file of an archive."""
        self.kept: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self.bad_rows = 0
        """Rows with at least one problem. A row's problems are added one after the other."""
        self.whole = 0
        """Problems of the file, not of a row: no budget of bad rows covers them."""
        self.skipped: SkippedRows | None = None
        """Where bad rows are written, all of them."""
        self._last: tuple[int | None, str | None] = (None, None)

    def add(
        self,
        code: str,
        message: str,
        hint: str = "",
        *,
        place: int | None = None,
        column: str | None = None,
        entry: str | None = None,
        sample: object = None,
        row: object = None,
    ) -> None:
        """`sample` is the value at fault; `row` what it stands in, if that is more."""
        self.counts[code] += 1
        if place is None:
            self.whole += 1
        elif (place, entry) != self._last:
            self.bad_rows += 1
            self._last = place, entry
        if place is not None and self.skipped is not None:
            told = {"code": code, "message": message, "hint": hint, "column": column}
            raw = sample if row is None else row
            self.skipped.add(self._place(place, entry), told, raw)
        if len(self.kept) < self.cap:
            shown = None if sample is None else shorten(sample)
            self.kept.append(Problem(code, message, hint, place, column, entry, shown))

    def fatal(self, code: str, message: str, hint: str = "", **where: Any) -> BadData:
        """The error for a problem after which reading cannot go on. The caller raises it."""
        self.add(code, message, hint, **where)
        self.whole += 1
        return self.error()

    def error(self) -> BadData:
        """All of it as one error, whose message shows the first problem and the count."""
        first = self.kept[0]
        more = self.counts.total() - 1
        message = f"{self._where(first)}: {first.message}."
        if first.hint:
            message = f"{message} {first.hint}"
        if more:
            message = f"{message} {more} more problem{'s' if more > 1 else ''}."
        return BadData(
            message,
            param=self.param,
            code=first.code if len(self.counts) == 1 else None,
            details=self.details(),
        )

    def details(self) -> list[dict[str, Any]]:
        return [
            {
                **self._place(problem.place, problem.entry),
                "column": problem.column,
                "code": problem.code,
                "message": problem.message,
                "hint": problem.hint,
                "sample": problem.sample,
            }
            for problem in self.kept
        ]

    def _place(self, place: int | None, entry: str | None) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": place if self.unit == "line" else None,
            "row": place if self.unit == "row" else None,
            "entry": entry,
        }

    def _where(self, problem: Problem) -> str:
        where = self.file
        if problem.entry is not None:
            where = f"{where}, entry {problem.entry}"
        if problem.place is not None and self.unit != "entry":
            where = f"{where} {self.unit} {problem.place}"
        if problem.column is not None:
            where = f"{where}, column `{problem.column}`"
        return where


def shorten(value: object) -> str:
    """A sample of a value that fits in a message and prints on one line."""
    if isinstance(value, bytes):
        value = value[: 4 * SAMPLE_CHARACTERS].decode("utf-8", "backslashreplace")
    text = value if isinstance(value, str) else repr(value)
    text = text[: SAMPLE_CHARACTERS + 1].replace("\x00", "\\x00")
    return text if len(text) <= SAMPLE_CHARACTERS else text[: SAMPLE_CHARACTERS - 1] + "…"
