"""CSV and TSV with a header line, as RFC 4180 has it: quotes double inside quotes.

A record may span lines; its place is the line where it starts.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

from ingest.limits import Limits
from ingest.lines import decode, read_lines
from ingest.parsers import Batch, Batches
from ingest.problems import Problems


def read(stream: BinaryIO, limits: Limits, problems: Problems, *, delimiter: str) -> Batches:
    records = _Records(stream, limits, problems, delimiter)
    header: list[str] | None = None
    batch, size = Batch(), 0
    for place, record in records:
        if header is None:
            header = _header(place, record, limits, problems)
            continue
        if len(record) != len(header):
            problems.add(
                "ragged_row",
                f"{len(record)} field{'' if len(record) == 1 else 's'} where the header has "
                f"{len(header)}",
                "Put a field that holds the delimiter or a quote between double quotes.",
                place=place,
                sample=delimiter.join(record),
            )
            continue
        batch.places.append(place)
        batch.rows.append(dict(zip(header, record, strict=True)))
        size += sum(map(len, record))
        if len(batch.rows) == limits.batch_rows or size > limits.batch_bytes:
            yield batch
            batch, size = Batch(), 0
    yield batch


def _header(place: int, names: list[str], limits: Limits, problems: Problems) -> list[str]:
    names = [name.strip() for name in names]
    if len(names) > limits.max_columns:
        raise problems.fatal(
            "too_many_columns",
            f"{len(names):,} columns, and at most {limits.max_columns:,} are read",
            "Keep only the columns that the task needs.",
            place=place,
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise problems.fatal(
            "duplicate_columns",
            f"the header names `{twice[0]}` more than once",
            "Rename one of the columns.",
            place=place,
            column=twice[0],
        )
    return names


class _Records:
    """Records with the line each starts on. Bad ones become problems and are passed over."""

    def __init__(
        self, stream: BinaryIO, limits: Limits, problems: Problems, delimiter: str
    ) -> None:
        self.limits = limits
        self.problems = problems
        self.lines = read_lines(stream, limits, problems)
        # The module's own limit is a process-wide 128 KiB; _feed holds the record's size.
        csv.field_size_limit(limits.max_line_bytes)
        self.reader = csv.reader(self._feed(), delimiter=delimiter, strict=True)
        self._begin()

    def _begin(self) -> None:
        self.start = 0
        self.bytes = 0
        self.readable = True

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            self._begin()
            try:
                record = next(self.reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.problems.add(
                    "invalid_csv",
                    f"not valid CSV ({error})",
                    'Inside a quoted field, write a quote twice ("").',
                    place=self.start,
                )
                continue
            if record and self.readable:
                yield self.start, record

    def _feed(self) -> Iterator[str]:
        for line in self.lines:
            text = decode(line, self.problems)
            self.start = self.start or line[0]
            self.bytes += len(line[2]) + 1
            if self.bytes > self.limits.max_line_bytes:
                raise self.problems.fatal(
                    "line_too_long",
                    f"the record is longer than {self.limits.max_line_bytes:,} bytes",
                    "Is a closing quote missing?",
                    place=self.start,
                )
            if text is None:
                self.readable = False
                text = ""
            yield text + "\n"
