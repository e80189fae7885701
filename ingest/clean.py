"""Cleaning that a user asked for, each step counted: nothing else changes a row.

Works from one prepared Arrow file to others: trim and normalise texts, leave out repeats, split off
validation rows, balance classes, in this order. The same file, choices and seed give the same
bytes. What stands in memory is a few numbers a row.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.errors import Unprocessable
from ingest.findings import RowHashes
from ingest.tasks.base import TaskFormat

Integers = npt.NDArray[np.int64]
MAX_SPLIT = 0.5


@dataclass(frozen=True)
class Choices:
    trim: bool = False
    """Blanks before and after a text."""
    normalize: Literal["NFC", "NFKC"] | None = None
    """Unicode's canonical form, or the one that also folds ligatures, widths and the like."""
    dedupe: bool = False
    """Rows whose input an earlier row has."""
    split: float = 0.0
    """The share of rows to split off for validation, of each label alike."""
    balance: Literal["undersample", "oversample"] | None = None
    """Classes as large as the smallest, or as the largest, in the training rows."""
    seed: int = 0


@dataclass(frozen=True)
class Cleaned:
    rows: int
    sha256: str
    labels: list[str]
    valid_rows: int
    valid_sha256: str | None
    report: dict[str, Any]
    """What each step did, with counts."""


def clean(
    prepared: Path, format: TaskFormat, choices: Choices, out: Path, valid_out: Path
) -> Cleaned:
    """Write `out` and, if rows are split off, `valid_out`. Raises Unprocessable."""
    _check(choices)
    report: dict[str, Any] = {}
    changes: Counter[str] = Counter()
    hashes = RowHashes(format)
    labels: list[str | None] = []
    for batch in _batches(prepared, format, choices, changes):
        hashes.add(batch)
        labels += batch["label"].to_pylist() if "label" in batch.schema.names else []
    report |= {step: changes[step] for step in ("trimmed", "normalized") if changes[step]}
    _, inputs = hashes.all()
    _, first, group = np.unique(inputs, return_index=True, return_inverse=True)
    times = np.ones(len(inputs), np.int64)
    if choices.dedupe:
        times[:] = 0
        times[first] = 1
        report["duplicates_left_out"] = int(len(inputs) - len(first))
    random = np.random.default_rng(choices.seed)
    single = len(labels) == len(inputs) and None not in labels
    codes = np.unique(np.array(labels, object), return_inverse=True)[1] if single else times * 0
    valid = np.zeros(len(inputs), bool)
    if choices.split:
        # Repeats of an input go where its first row goes, or validation would see training rows.
        valid = _split(codes[first], choices.split, random)[group]
        report["split_off"] = int(times[valid].sum())
    if choices.balance is not None:
        if not single:
            raise Unprocessable(
                "balance: the rows have no single label.",
                param="cleaning",
                hint="Leave it out for this task.",
            )
        before = Counter(labels)
        times = _balanced(codes, np.where(valid, 0, times), choices.balance, random) + np.where(
            valid, times, 0
        )
        report["balanced"] = _counts(labels, np.where(valid, 0, times), before)
    written = _write(prepared, format, choices, out, np.where(valid, 0, times))
    split_off = (
        _write(prepared, format, choices, valid_out, np.where(valid, times, 0))
        if choices.split
        else None
    )
    kept = {label for label, many in zip(labels, times, strict=True) if many} if single else set()
    return Cleaned(
        rows=int(np.where(valid, 0, times).sum()),
        sha256=written,
        labels=sorted(label for label in kept if label is not None),
        valid_rows=int(np.where(valid, times, 0).sum()),
        valid_sha256=split_off,
        report=report,
    )


def _check(choices: Choices) -> None:
    if not 0 <= choices.split <= MAX_SPLIT:
        raise Unprocessable(
            f"split is {choices.split:g}.",
            param="cleaning",
            hint=f"It is a share of the rows, from 0 to {MAX_SPLIT}.",
        )


def _batches(
    prepared: Path, format: TaskFormat, choices: Choices, changes: Counter[str]
) -> Iterator[pa.RecordBatch]:
    steps: list[tuple[str, Callable[[str], str]]] = []
    if choices.trim:
        steps.append(("trimmed", str.strip))
    if choices.normalize is not None:
        form = choices.normalize
        steps.append(("normalized", lambda text: unicodedata.normalize(form, text)))
    with pa.memory_map(str(prepared)) as source:
        reader = pa.ipc.open_file(source)
        for index in range(reader.num_record_batches):
            yield _changed(reader.get_batch(index), format, steps, changes)


def _changed(
    batch: pa.RecordBatch,
    format: TaskFormat,
    steps: list[tuple[str, Callable[[str], str]]],
    changes: Counter[str],
) -> pa.RecordBatch:
    """The batch with each step done to its texts, and how many texts that changed."""
    for name in (*format.inputs, *format.outputs):
        column = batch.column(name)
        if not steps or name in format.counted or not pa.types.is_string(column.type):
            continue
        values = column.to_pylist()
        for step, change in steps:
            changed = [None if value is None else change(value) for value in values]
            changes[step] += sum(old != new for old, new in zip(values, changed, strict=True))
            values = changed
        index = batch.schema.get_field_index(name)
        batch = batch.set_column(index, batch.schema.field(index), pa.array(values, column.type))
    return batch


def _split(codes: Integers, share: float, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which rows are split off: of each label the share, rounded (half to even, so never all)."""
    valid = np.zeros(len(codes), bool)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        valid[random.permutation(rows)[: round(share * len(rows))]] = True
    return valid


def _balanced(codes: Integers, times: Integers, way: str, random: np.random.Generator) -> Integers:
    """How often each row is written so that all labels are as frequent."""
    there = [np.flatnonzero((codes == code) & (times > 0)) for code in np.unique(codes)]
    there = [rows for rows in there if len(rows)]
    goal = (min if way == "undersample" else max)(len(rows) for rows in there)
    balanced = np.zeros_like(times)
    for rows in there:
        balanced[rows] = goal // len(rows)
        balanced[random.permutation(rows)[: goal % len(rows)]] += 1
    return balanced


def _counts(
    labels: list[str | None], times: Integers, before: Counter[str | None]
) -> dict[str, list[int]]:
    after: Counter[str | None] = Counter()
    for label, many in zip(labels, times.tolist(), strict=True):
        after[label] += many
    return {str(label): [before[label], after[label]] for label in sorted(before, key=str)}


def _write(prepared: Path, format: TaskFormat, choices: Choices, out: Path, times: Integers) -> str:
    """The rows, each as often as `times` says; the file's SHA-256."""
    start = 0
    partial = out.with_name(f".{out.name}.part")
    try:
        writer = None
        with pa.OSFile(str(partial), "wb") as sink:
            for batch in _batches(prepared, format, choices, Counter()):
                writer = writer or pa.ipc.new_file(sink, batch.schema)
                wanted = times[start : start + batch.num_rows]
                start += batch.num_rows
                if wanted.any():
                    writer.write_batch(batch.take(np.repeat(np.arange(len(wanted)), wanted)))
            if writer is not None:
                writer.close()
        with partial.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    return sha256
