"""A run as its job folder tells of it: the spec, the series, and samples where there are any."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tsdownsample import LTTBDownsampler

from models.spec import ResolvedSpec

SERIES = "series.jsonl"
SAMPLES = "samples.json"
DRAWN_POINTS = 2000
"""More than a figure has pixels; beyond, the points that shape the curve are chosen by LTTB
(Steinarsson 2013)."""


@dataclass(frozen=True)
class Curve:
    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def drawn(self) -> Curve:
        """At most `DRAWN_POINTS` of them."""
        if len(self.steps) <= DRAWN_POINTS:
            return self
        chosen = LTTBDownsampler().downsample(self.steps, self.values, n_out=DRAWN_POINTS)
        return Curve(self.steps[chosen], self.values[chosen])


@dataclass(frozen=True)
class Run:
    job_id: str
    spec: ResolvedSpec
    records: Path
    curves: dict[tuple[str, str], Curve]
    """By (split, name)."""
    samples: list[tuple[dict[str, Any], Any]]
    """A row of the user's file, and what the model makes of it."""
    split: str
    """Where the samples are from."""
    counts: dict[str, Any]
    """`confusion` or `by_label` of the newest evaluation (`Task.tally`)."""

    @property
    def best(self) -> tuple[int, float] | None:
        """The step and the value of the evaluation that the model is chosen by."""
        curve = self.curves.get(("valid", self.spec.metric))
        if curve is None:
            return None
        values = curve.values if self.spec.greater_is_better else -curve.values
        place = int(values.argmax())  # The first of equals, as in training.
        return int(curve.steps[place]), float(curve.values[place])


def read_run(folder: Path) -> Run:
    """Raises OSError or ValueError where the folder is not one of a run that measured anything."""
    job = json.loads((folder / "job.json").read_bytes())
    samples: dict[str, Any] = {"rows": [], "split": "valid"}
    if (folder / SAMPLES).exists():
        samples = json.loads((folder / SAMPLES).read_bytes())
    rows = []
    if samples["rows"]:
        data = job["valid" if samples["split"] == "valid" else "train"]
        with pa.memory_map(str(folder / data)) as source:
            table = pa.ipc.open_file(source).read_all()
            for row in samples["rows"]:
                rows.append((table.slice(row["place"], 1).to_pylist()[0], row["told"]))
    return Run(
        job_id=job["job_id"],
        spec=ResolvedSpec.model_validate(job["spec"]),
        records=folder / SERIES,
        curves=_curves(folder / SERIES),
        samples=rows,
        split=samples["split"],
        counts={name: samples[name] for name in ("confusion", "by_label") if name in samples},
    )


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The `metrics` records, as docs/job-folder.md has them, steps rising."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _curves(path: Path) -> dict[tuple[str, str], Curve]:
    steps: dict[tuple[str, str], array[int]] = defaultdict(lambda: array("q"))
    values: dict[tuple[str, str], array[float]] = defaultdict(lambda: array("d"))
    for record in read_records(path):
        for name, value in record["values"].items():
            if value is not None:
                key = record["split"], name
                steps[key].append(record["step"])
                values[key].append(value)
    return {key: Curve(np.array(steps[key]), np.array(values[key])) for key in steps}
