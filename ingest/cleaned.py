"""A prepared file, cleaned in place: what comes out is prepared data again, and still enough."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from core.errors import BadData, Unprocessable
from ingest import tasks
from ingest.clean import Choices, Cleaned, clean
from ingest.prepare import Prepared, SplitOff


def cleaned(prepared: Prepared, choices: Choices, out: Path, valid_out: Path | None) -> Prepared:
    """Clean the file at `out`; rows that are split off go to `valid_out`.

    Raises Unprocessable for choices that the data cannot take, BadData where too little is left.
    """
    format = tasks.get(prepared.report["task"])
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        train, valid = Path(scratch, "train"), Path(scratch, "valid")
        done = clean(out, format, choices, train, valid)
        _require_enough(prepared, done, choices)
        train.replace(out)
        if valid_out is not None and done.valid_sha256 is not None:
            valid.replace(valid_out)
    report = prepared.report | {"cleaning": done.report | {"rows": done.rows}}
    split = None
    if done.valid_sha256 is not None:
        split = SplitOff(done.valid_rows, done.valid_sha256)
    labels = done.labels or prepared.labels
    return replace(
        prepared, rows=done.rows, labels=labels, sha256=done.sha256, report=report, split_off=split
    )


def _require_enough(prepared: Prepared, done: Cleaned, choices: Choices) -> None:
    file = prepared.report["file"]
    if choices.split and not done.valid_rows:
        raise Unprocessable(
            f"{file}: a split of {choices.split:g} leaves no row to validate on.",
            param="cleaning",
            hint="Make it larger, or give a validation file.",
        )
    if len(prepared.labels) > 1 and len(done.labels) == 1:
        raise BadData(
            f"{file}: after cleaning every row has the label `{done.labels[0]}`.",
            code="one_class",
            param="training_file",
            hint="At least two labels are needed.",
        )
