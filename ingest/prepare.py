"""A user's file in, one Arrow file in the task's schema out, or every problem with its place.

The file is read as a stream, in batches; nothing here holds more of it than one batch. The same
bytes with the same mapping give the same Arrow bytes, so their hash names the dataset.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa

from ingest import columns, sniff, tasks
from ingest.limits import Limits
from ingest.parsers import Batch, Batches, delimited, jsonl
from ingest.problems import BadValue, Problems
from ingest.tasks.base import Row, Shape

Role = Literal["training", "validation"]

SUPPORTED = "Supported are JSON Lines, CSV and TSV with a header line, in UTF-8 or UTF-16."


@dataclass(frozen=True)
class Prepared:
    rows: int
    labels: list[str]
    """Sorted; position is the class id. Empty for tasks without labels."""
    sha256: str
    """Of the Arrow file's bytes."""
    report: dict[str, Any]


def prepare(
    source: Path,
    task: str,
    *,
    column_mapping: dict[str, str] | None = None,
    out: Path,
    role: Role,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    limits: Limits | None = None,
) -> Prepared:
    """Check `source` and write it to `out` as an Arrow IPC file in the task's schema.

    `labels` are those of the training data, which validation data may not go beyond. `name` is
    what messages call the file. Raises BadData, with nothing left at `out`; Unprocessable for a
    mapping that cannot be meant or an unknown task.
    """
    limits = limits or Limits()
    format = tasks.get(task)
    problems = Problems(name or source.name, f"{role}_file", limits.max_problems)
    partial = out.with_name(out.name + ".part")
    try:
        with source.open("rb") as stream:
            sniffed, batches = _open(stream, limits, problems)
            found, batches = _peek(batches, problems)
            shape, binding = columns.bind(format, found, column_mapping, problems)
            check = _Checker(shape, binding, problems, set(labels) if labels is not None else None)
            with (
                pa.OSFile(str(partial), "wb") as sink,
                pa.ipc.new_file(sink, format.schema) as writer,
            ):
                for batch in batches:
                    if rows := check.rows(batch):
                        writer.write_batch(pa.RecordBatch.from_pylist(rows, format.schema))
        check.whole(role)
        if problems.counts:
            raise problems.error()
        with partial.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    used = {column.name: theirs for column, theirs in binding}
    report = {
        "file": problems.file,
        "format": sniffed.format,
        "encoding": sniffed.encoding,
        "task": task,
        "shape": shape.name,
        "columns": used,
        "ignored_columns": [column for column in found if column not in used.values()],
        "rows": check.count,
        "labels": dict(sorted(check.labels.items())),
    }
    return Prepared(check.count, sorted(check.labels), sha256, report)


def _open(stream: BinaryIO, limits: Limits, problems: Problems) -> tuple[sniff.Sniffed, Batches]:
    sniffed = sniff.sniff(stream.read(sniff.HEAD_BYTES))
    stream.seek(0)
    match sniffed.format:
        case "empty":
            raise problems.fatal("empty_file", "the file is empty", "Was the upload complete?")
        case "jsonl":
            return sniffed, jsonl.read(stream, limits, problems)
        case "csv" | "tsv" | "text":
            delimiter = sniffed.delimiter or ","
            return sniffed, delimited.read(stream, limits, problems, delimiter=delimiter)
        case "json":
            raise problems.fatal(
                "unsupported_format",
                "this is one JSON document",
                f"Write one object a line (JSON Lines). {SUPPORTED}",
            )
        case _:
            raise problems.fatal("unsupported_format", f"this is {sniffed.description}", SUPPORTED)


def _peek(batches: Batches, problems: Problems) -> tuple[list[str], Batches]:
    """The columns that the first batch of rows names, in order, and all batches again."""
    first = next((batch for batch in batches if batch.rows), None)
    if first is None:
        if problems.counts:
            raise problems.error()
        raise problems.fatal("no_rows", "the file has no rows", "A header alone trains nothing.")
    found = list(dict.fromkeys(name for row in first.rows for name in row))

    def all_batches() -> Iterator[Batch]:
        yield first
        yield from batches

    return found, all_batches()


class _Checker:
    """Checks rows against a shape and builds the schema's; counts what the whole must satisfy."""

    def __init__(
        self,
        shape: Shape,
        binding: columns.Binding,
        problems: Problems,
        allowed: set[str] | None,
    ) -> None:
        self.shape = shape
        self.binding = binding
        self.problems = problems
        self.allowed = allowed
        self.labels: Counter[str] = Counter()
        self.count = 0

    def rows(self, batch: Batch) -> list[Row]:
        rows = [
            row
            for place, values in zip(batch.places, batch.rows, strict=True)
            if (row := self._row(place, values)) is not None
        ]
        self.count += len(rows)
        if self.shape.labels:
            self.labels.update(row["label"] for row in rows)
        return rows

    def _row(self, place: int, values: Row) -> Row | None:
        row: Row = {}
        good = True
        for column, theirs in self.binding:
            value = values.get(theirs)
            try:
                if value is None or (value == "" and not column.required):
                    if column.required:
                        raise BadValue(
                            "missing_value", "no value", "Fill it in or leave the row out."
                        )
                    row[column.name] = None
                else:
                    row[column.name] = column.kind(value)
            except BadValue as bad:
                good = False
                self._add(bad, place, theirs, value)
        if good:
            try:
                row = self.shape.build(row)
                self._check_label(row)
            except BadValue as bad:
                good = False
                names = {column.name: name for column, name in self.binding}
                self._add(bad, place, names.get(bad.column or ""), values)
        if not good:
            return None
        row["id"] = place
        return row

    def _check_label(self, row: Row) -> None:
        if self.shape.labels and self.allowed is not None and row["label"] not in self.allowed:
            shown = ", ".join(sorted(self.allowed)[:10])
            raise BadValue(
                "label_unseen",
                f"the label `{row['label']}` is not in the training data",
                f"Its labels are: {shown}.",
                column="label",
            )

    def _add(self, bad: BadValue, place: int, column: str | None, sample: object) -> None:
        self.problems.add(
            bad.code, bad.message, bad.hint, place=place, column=column, sample=sample
        )

    def whole(self, role: Role) -> None:
        """What only the whole file shows."""
        if self.shape.labels and role == "training" and self.count and len(self.labels) == 1:
            self.problems.add(
                "one_class",
                f"every row has the label `{next(iter(self.labels))}`",
                "A classifier needs at least two labels.",
            )
