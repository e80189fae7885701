"""Rows against a shape: each value, the row as the schema has it, and what the whole must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from ingest import columnar
from ingest.archives import Archive
from ingest.columns import Binding
from ingest.findings import RowHashes
from ingest.layouts import media
from ingest.limits import Limits
from ingest.media.load import load
from ingest.parsers import Batch
from ingest.problems import BadValue, Problems
from ingest.tasks.base import Column, Row, Shape, TaskFormat


class Checker:
    """Checks batch by batch; counts rows and labels; collects problems and remarks."""

    def __init__(
        self,
        format: TaskFormat,
        shape: Shape,
        binding: Binding,
        problems: Problems,
        limits: Limits,
        archive: Archive | None,
        allowed: Sequence[str] | None,
    ) -> None:
        self.schema = format.schema.with_metadata({"task": format.name, "shape": shape.name})
        self.shape = shape
        self.binding = binding
        self.names = {column.name: theirs for column, theirs in binding}
        self.problems = problems
        self.remarks = Problems(problems.file, problems.param, problems.cap)
        """What may be meant and is trained on all the same."""
        self.limits = limits
        self.archive = archive
        self.allowed = None if allowed is None else frozenset(allowed)
        self.columnar = columnar.suits(shape, binding)
        self.hashes = RowHashes(format)
        self.labels: Counter[str] = Counter()
        self.count = 0

    def table(self, batch: Batch) -> pa.RecordBatch | None:
        """The batch's good rows in the task's schema; None if there are none."""
        table = self._by_columns(batch) or self._by_rows(batch)
        if table is not None:
            self.count += table.num_rows
        return table

    def _by_columns(self, batch: Batch) -> pa.RecordBatch | None:
        columns = batch.columns
        if columns is None and self.columnar and batch.rows:
            columns = columnar.take(batch.places, batch.rows, self.binding)
        if columns is None or not columns.only(self.allowed):
            return None
        self.labels.update(columns.labels)
        table = columns.table(self.schema)
        self.hashes.add(table, columns.hashes)
        return table

    def _by_rows(self, batch: Batch) -> pa.RecordBatch | None:
        self.remarks.unit = self.problems.unit
        good = []
        for index, (place, values) in enumerate(zip(batch.places, batch.rows, strict=True)):
            entry = batch.entries[index] if batch.entries else None
            row = self._row(values, place, entry)
            if row is not None:
                row["id"] = place
                good.append(row)
                self.labels.update(self.shape.labels(row))
        if not good:
            return None
        table = pa.RecordBatch.from_pylist(good, self.schema)
        self.hashes.add(table)
        return table

    def whole(self, minimum: int) -> None:
        """What only the whole file shows: `minimum` is how many different labels it must hold."""
        if self.archive is not None:
            for name in media(self.archive):
                if name not in self.archive.used:
                    self.remarks.add(
                        "unused_files",
                        "images or recordings are in the archive that no row has",
                        "Look whether their rows are missing.",
                        entry=name,
                    )
        if not self.count:
            if not self.problems.counts:
                self.problems.add("no_rows", "no row is left")
        elif len(self.labels) < minimum:
            only = next(iter(self.labels), None)
            self.problems.add(
                "one_class",
                f"every row has the label `{only}`" if only is not None else "no row has a label",
                f"At least {'two labels are' if minimum > 1 else 'one label is'} needed."
                + (" In a mask 255 is no class." if "mask" in self.schema.names else ""),
            )

    def _row(self, values: Row, place: int, entry: str | None) -> Row | None:
        row: Row = {}
        good = True
        for column, theirs in self.binding:
            value = values.get(theirs)
            try:
                row |= self._cell(column, value)
            except BadValue as bad:
                good = False
                self._add(bad, place, entry, theirs, value, values)
        if not good:
            return None
        try:
            row = self.shape.build(row)
            self._known_labels(row)
        except BadValue as bad:
            self._add(bad, place, entry, self.names.get(bad.column or ""), values, values)
            return None
        for code, message in row.pop("remarks", ()):
            self.remarks.add(code, message, place=place, entry=entry)
        return row

    def _cell(self, column: Column, value: object) -> Row:
        if value is None or (value == "" and not column.required):
            if column.required:
                raise BadValue("missing_value", "no value", "Fill it in or leave the row out.")
            return {column.name: None}
        checked = column.kind(value)
        if column.loads is None:
            return {column.name: checked}
        return load(column.loads, checked, self.archive, self.limits)

    def _known_labels(self, row: Row) -> None:
        if self.allowed is None:
            return
        unknown = [label for label in self.shape.labels(row) if label not in self.allowed]
        if unknown:
            raise BadValue(
                "label_unseen",
                f"the label `{unknown[0]}` is not in the training data",
                f"Its labels are: {', '.join(sorted(self.allowed)[:10])}.",
                column="label",
            )

    def _add(
        self,
        bad: BadValue,
        place: int,
        entry: str | None,
        column: str | None,
        sample: object,
        row: Row,
    ) -> None:
        self.problems.add(
            bad.code,
            bad.message,
            bad.hint,
            place=place,
            entry=entry,
            column=column,
            sample=sample,
            row=row,
        )
