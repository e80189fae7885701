"""A job's metric series as files on this machine's disk, page by page: it may have a million steps.

What the trainer wrote as records is in the database, over all attempts; here it becomes records
again, for the process that draws it, and the CSV that the user gets.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from models import metrics
from models.db import Session
from models.metrics import Metric
from models.scope import Page
from worker.lease import Lease

PAGE_POINTS = 10_000
OPENAI_COLUMNS = ("train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""Of OpenAI's result files, which code written for those reads by name: never missing here."""
SYNONYMS = {
    "train_accuracy": "train_mean_token_accuracy",
    "valid_mean_token_accuracy": "valid_accuracy",
}
"""What fills such a column where the task calls its accuracy by the other name."""


def write(lease: Lease, path: Path) -> bool:
    """Write the series as `metrics` records (docs/job-folder.md), one a line, steps rising; whether
    there are any. Raises LeaseLost."""
    after = 0
    with path.open("w", encoding="utf-8") as file:
        while True:
            page = lease.write(partial(_page, job_id=lease.job_id, after_step=after))
            for point in page.rows:
                record = {
                    "type": "metrics",
                    "time": round(point.created_at.timestamp(), 3),
                    "step": point.step,
                    "split": point.split,
                    "values": point.values,
                }
                file.write(json.dumps(record) + "\n")
                after = point.step
            if not page.has_more:
                return after > 0


def _page(session: Session, *, job_id: str, after_step: int) -> Page[Metric]:
    return metrics.series(session, job_id, split=None, after_step=after_step, limit=PAGE_POINTS)


def write_csv(series: Path, path: Path) -> None:
    """The series of such a file with a line a step: OpenAI's columns, then all that was measured
    as `train_…` and `valid_…`."""
    own: dict[str, None] = {}
    for record in _records(series):
        own |= dict.fromkeys(_values(record))
    others = [name for name in own if name not in OPENAI_COLUMNS]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *OPENAI_COLUMNS, *others], lineterminator="\n")
        writer.writeheader()
        for step, records in groupby(_records(series), key=itemgetter("step")):
            row: dict[str, Any] = {"step": step}
            for record in records:
                row |= _values(record)
            for name, synonym in SYNONYMS.items():
                if name not in own and synonym in row:
                    row[name] = row[synonym]
            writer.writerow(row)


def _records(series: Path) -> Iterator[dict[str, Any]]:
    with series.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _values(record: dict[str, Any]) -> dict[str, Any]:
    return {f"{record['split']}_{name}": value for name, value in record["values"].items()}
