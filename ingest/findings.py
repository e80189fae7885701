"""What is odd about data that is valid: nothing here refuses a file, all of it is in the report.

Works on the prepared Arrow file, batch by batch. Rows are compared by 64-bit hashes of the columns
that the model is given; of a million rows the chance of one false pair is about 3e-8.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest import hashing
from ingest.hashing import Hashes
from ingest.problems import Problems
from ingest.profile import batches_of
from ingest.tasks.base import TaskFormat

SHOWN = 10
"""Places listed of each finding."""
TINY_PIXELS = 16

Ids = npt.NDArray[np.int64]


@dataclass
class Finding:
    code: str
    message: str
    hint: str
    count: int
    places: list[dict[str, Any]] = field(default_factory=list)


def find(
    prepared: Path,
    format: TaskFormat,
    rows: RowHashes,
    labels: Mapping[str, int],
    remarks: Problems,
    training: Path | None = None,
) -> list[dict[str, Any]]:
    """All findings on a prepared file; `training` is the prepared file it is validated against."""
    ids, inputs = rows.all()
    unit = "line" if remarks.unit == "line" else "row"
    findings = [
        *_repeats(ids, inputs, prepared, format, unit),
        *_labels(labels),
        *_tiny(prepared, format, unit),
        *_remarks(remarks),
    ]
    if training is not None:
        _, known = RowHashes.of_file(training, format).all()
        findings += _leakage(ids, inputs, known, unit)
    return [asdict(finding) for finding in findings]


class RowHashes:
    """For each row its id and the hash of what the model is given."""

    def __init__(self, format: TaskFormat) -> None:
        self._format = format
        self._parts: list[tuple[Ids, Hashes]] = []

    def add(self, batch: pa.RecordBatch, known: Mapping[str, Hashes] | None = None) -> None:
        """`known` are the hashes of columns whose values stood in memory already."""
        hashes = _of_columns(batch, self._format.inputs, known or {})
        self._parts.append((np.asarray(batch.column("id")), hashes))

    def all(self) -> tuple[Ids, Hashes]:
        ids, inputs = zip(*self._parts, strict=True)
        return np.concatenate(ids), np.concatenate(inputs)

    @classmethod
    def of_file(cls, prepared: Path, format: TaskFormat) -> RowHashes:
        hashes = cls(format)
        for batch in batches_of(prepared):
            hashes.add(batch)
        return hashes


def _of_columns(batch: pa.RecordBatch, names: Sequence[str], known: Mapping[str, Hashes]) -> Hashes:
    columns = [
        known[name] if name in known else hashing.of_array(batch.column(name)) for name in names
    ]
    return hashing.of_columns(columns, batch.num_rows)


def _repeats(
    ids: Ids, inputs: Hashes, prepared: Path, format: TaskFormat, unit: str
) -> list[Finding]:
    # Few rows are repeats, and values are sorted far faster than positions are.
    ordered = np.sort(inputs)
    repeated = np.isin(inputs, ordered[1:][ordered[1:] == ordered[:-1]])
    if not repeated.any():
        return []
    ids, inputs = ids[repeated], inputs[repeated]
    order = np.argsort(inputs, kind="stable")
    same = inputs[order][1:] == inputs[order][:-1]
    later = order[1:][same]
    """Rows whose input stood in the file before."""
    findings = [
        Finding(
            "duplicate_rows",
            f"{len(later):,} rows repeat the input of an earlier one",
            "They count as often as they stand there. Cleaning can leave them out.",
            len(later),
            _places(ids[later], unit),
        )
    ]
    if format.outputs:
        outputs = _outputs(prepared, format, repeated)
        against = later[outputs[later] != outputs[order[:-1][same]]]
        if len(against):
            findings.append(
                Finding(
                    "contradictory_rows",
                    f"{len(against):,} rows have an earlier row's input but another output",
                    "A model cannot learn both. Keep the right one.",
                    len(against),
                    _places(ids[against], unit),
                )
            )
    return findings


def _outputs(prepared: Path, format: TaskFormat, wanted: npt.NDArray[np.bool_]) -> Hashes:
    """Of the wanted rows, the hashes of what the model shall say."""
    parts, start = [], 0
    for batch in batches_of(prepared):
        rows = wanted[start : start + batch.num_rows]
        start += batch.num_rows
        if rows.any():
            chosen = batch.select(list(format.outputs)).filter(pa.array(rows))
            parts.append(_of_columns(chosen, format.outputs, {}))
    return np.concatenate(parts)


def _leakage(ids: Ids, inputs: Hashes, known: Hashes, unit: str) -> list[Finding]:
    leaked = ids[np.isin(inputs, known)]
    if not len(leaked):
        return []
    return [
        Finding(
            "leakage",
            f"{len(leaked):,} of {len(ids):,} validation rows are training rows too",
            "The metrics will look better than they are. Leave these rows out.",
            len(leaked),
            _places(leaked, unit),
        )
    ]


def _labels(labels: Mapping[str, int]) -> list[Finding]:
    findings = []
    single = [label for label, count in labels.items() if count == 1]
    if single:
        findings.append(
            Finding(
                "single_example_label",
                f"{_some(single)} occur in one row only",
                "One example teaches little; add more or merge labels.",
                len(single),
            )
        )
    variants: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        folded = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        variants[folded].append(label)
    for names in variants.values():
        if len(names) > 1:
            findings.append(
                Finding(
                    "label_variants",
                    f"{_some(names)} differ in case or blanks alone",
                    "They are different classes now. Write them alike if they are one.",
                    len(names),
                )
            )
    return findings


def _tiny(prepared: Path, format: TaskFormat, unit: str) -> list[Finding]:
    if format.modality != "image":
        return []
    with pa.memory_map(str(prepared)) as source:
        table = pa.ipc.open_file(source).read_all().select(["id", "width", "height"])
        ids, width, height = (np.asarray(column) for column in table.columns)
    tiny = ids[np.minimum(width, height) < TINY_PIXELS]
    if not len(tiny):
        return []
    return [
        Finding(
            "tiny_images",
            f"{len(tiny):,} images have a side of less than {TINY_PIXELS} pixels",
            "They are scaled up to what the model takes.",
            len(tiny),
            _places(tiny, unit),
        )
    ]


def _remarks(remarks: Problems) -> list[Finding]:
    findings: dict[str, Finding] = {}
    for problem, place in zip(remarks.kept, remarks.details(), strict=True):
        finding = findings.setdefault(
            problem.code,
            Finding(problem.code, problem.message, problem.hint, remarks.counts[problem.code]),
        )
        if len(finding.places) < SHOWN:
            finding.places.append({key: place[key] for key in ("line", "row", "entry")})
    return list(findings.values())


def _places(ids: Ids, unit: str) -> list[dict[str, Any]]:
    return [{unit: int(place)} for place in np.sort(ids)[:SHOWN]]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
