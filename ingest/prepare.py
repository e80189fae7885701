"""A user's file in, one Arrow file in the task's schema out, or every problem with its place.

The file is read as a stream, in batches; nothing here holds more of it than one batch. The same
bytes with the same mapping give the same Arrow bytes, so their hash names the dataset.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from core.errors import BadData, Unprocessable
from ingest import columns, findings, profile, tasks
from ingest.check import Checker
from ingest.infer import infer_task, told_what_fits
from ingest.limits import Limits
from ingest.parsers import Batch, Batches
from ingest.problems import BadValue, Problems
from ingest.skipped import SkippedRows
from ingest.source import first_rows, open_source, unpacked
from ingest.tasks.base import TaskFormat
from ingest.typed import TypedLines
from ingest.writing import ArrowWriter

Role = Literal["training", "validation"]

MAX_SKIP = 0.05


@dataclass(frozen=True)
class SplitOff:
    rows: int
    sha256: str


@dataclass(frozen=True)
class Prepared:
    rows: int
    labels: list[str]
    """Sorted; position is the class id. Empty for tasks without labels."""
    sha256: str
    """Of the Arrow file's bytes."""
    report: dict[str, Any]
    split_off: SplitOff | None = None
    """Rows that cleaning took from these for validation."""


def prepare(
    source: Path,
    task: str | None,
    *,
    column_mapping: dict[str, str] | None = None,
    out: Path,
    role: Role,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    limits: Limits | None = None,
    skip_invalid: float = 0.0,
    training: Path | None = None,
    shape: str | None = None,
    skipped_out: Path | None = None,
) -> Prepared:
    """Check `source` and write it to `out` as an Arrow IPC file in the task's schema.

    Without a `task` the one that the file is for is meant; the report says which. `labels` are
    those of the training data, which validation data may not go beyond. `name` is what messages
    call the file. Up to the share `skip_invalid` of the rows may be bad: they are left out, counted
    in the report, and written to `skipped_out` if there are any. `training` is the prepared
    training file, with which validation data may share no row without the report saying so;
    `shape` is the one of the task's shapes that is allowed, such as the training data's. Raises
    BadData, with nothing left behind; Unprocessable for a mapping that cannot be meant or an
    unknown task; InvalidRequest where the task cannot be told.
    """
    if not 0 <= skip_invalid <= MAX_SKIP:
        raise Unprocessable(
            f"skip_invalid is {skip_invalid:g}.",
            param="skip_invalid",
            hint=f"It is a share of the rows, from 0 to {MAX_SKIP}.",
        )
    limits = limits or Limits()
    format = tasks.get(task) if task is not None else None
    problems = Problems(name or source.name, f"{role}_file", limits.max_problems)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch)
        partial = folder / "partial.arrow"
        plain, packing = unpacked(source, folder, limits, problems)
        if format is None:
            format = tasks.get(infer_task(plain, name=problems.file, limits=limits))
        if skipped_out is not None:
            problems.skipped = SkippedRows(folder / "skipped.jsonl")
        mapped = frozenset((column_mapping or {}).values())
        typed = TypedLines()
        try:
            with open_source(plain, folder, format, limits, problems, mapped, typed) as opened:
                unnested = _unnested(opened.batches, format, problems)
                first = first_rows(unnested, problems)
                found = first.names()
                bound, binding = columns.bind(
                    format, found, first, column_mapping, problems, wanted=shape
                )
                check = Checker(format, bound, binding, problems, limits, opened.archive, labels)
                typed.expect(bound, binding, first.rows, check.allowed)
                with ArrowWriter(partial, check.schema) as writer:
                    for batch in chain([first], unnested):
                        table = check.table(batch)
                        if table is not None:
                            writer.write(table)
                    sha256 = writer.finish()
            check.whole(minimum=bound.min_labels if role == "training" else 0)
            rows = check.count + problems.bad_rows
            if problems.whole or problems.bad_rows > skip_invalid * rows:
                raise problems.error()
        except BadData as error:
            raise told_what_fits(error, plain, format.name, limits) from None
        if skipped_out is not None and problems.skipped is not None and problems.skipped.finish():
            (folder / "skipped.jsonl").rename(skipped_out)
        partial.rename(out)
    used = {column.name: theirs for column, theirs in binding}
    report = {
        "file": problems.file,
        "format": packing + opened.format,
        "encoding": opened.encoding,
        "task": format.name,
        "shape": bound.name,
        "columns": used,
        "ignored_columns": [column for column in found if column not in used.values()],
        "rows": check.count,
        "labels": dict(sorted(check.labels.items())),
        "skipped": {"rows": problems.bad_rows, "problems": problems.details()},
        "findings": findings.find(out, format, check.hashes, check.labels, check.remarks, training),
        "profile": profile.profile(out, check.count),
    }
    return Prepared(check.count, sorted(check.labels), sha256, report)


def _unnested(batches: Batches, format: TaskFormat, problems: Problems) -> Batches:
    """Elements of a document that hold many rows (SQuAD's articles), taken apart."""
    if format.unnest is None:
        yield from batches
        return
    count = 0
    for batch in batches:
        parts = [format.unnest(row) for row in batch.rows]
        if not any(parts):
            yield batch
            continue
        rows = []
        for place, part in zip(batch.places, parts, strict=True):
            try:
                rows += list(part or ())
            except BadValue as bad:
                problems.add(bad.code, bad.message, bad.hint, place=place)
        yield Batch(list(range(count + 1, count + 1 + len(rows))), rows)
        count += len(rows)
