"""A job's way from user files to weights without the service around it: what `bench` trains by."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.prepare import prepare
from models.resolve import DataFacts, resolve
from models.spec import JobRequest
from training.control import Control
from training.job import read_job
from training.loop import train
from training.records import Records


@dataclass(frozen=True)
class Trained:
    output: Path
    records: list[dict[str, Any]]

    def evaluations(self) -> list[tuple[int, dict[str, float]]]:
        """(step, metrics) of each evaluation on the validation file, in order."""
        return [
            (record["step"], record["values"])
            for record in self.records
            if record["type"] == "metrics" and record["split"] == "valid"
        ]

    @property
    def done(self) -> dict[str, Any]:
        """The last record: the best evaluation's metrics among others."""
        assert self.records[-1]["type"] == "done", self.records[-1]
        return self.records[-1]


def run(
    folder: Path, model_dir: Path, task: str, training: Path, validation: Path, **asked: Any
) -> Trained:
    """Check both files, resolve the spec as the service does, and train in this process on the
    CPU. `asked` is what a request may hold beside model and files. `folder` is made."""
    folder.mkdir(parents=True)
    seen = prepare(training, task, out=folder / "train.arrow", role="training")
    held = prepare(
        validation, task, out=folder / "valid.arrow", role="validation", labels=seen.labels or None
    )
    facts = DataFacts(
        task=task,
        train_rows=seen.rows,
        valid_rows=held.rows,
        labels=seen.labels,
        train_sha256=seen.sha256,
        valid_sha256=held.sha256,
        shape=seen.report["shape"],
    )
    request = JobRequest.model_validate(
        {"model": model_dir.name, "training_file": "t", "validation_file": "v", **asked}
    )
    spec = resolve(
        request, facts, model=model_dir.name, model_revision=None, seed=request.seed or 0,
        max_job_tokens=10**12,
    )  # fmt: skip
    contract = {
        "job_id": "bench",
        "spec": spec.model_dump(),
        "model_dir": str(model_dir.absolute()),
        "train": "train.arrow",
        "valid": "valid.arrow",
        "device": "cpu",
    }
    (folder / "job.json").write_text(json.dumps(contract))
    path = folder / "records.jsonl"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        train(read_job(folder), Records(fd), Control())
    finally:
        os.close(fd)
    lines = path.read_text().splitlines()
    return Trained(folder / "output", [json.loads(line) for line in lines])
