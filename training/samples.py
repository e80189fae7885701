"""A few rows, and what the model makes of them: left in the job folder for the report to show.

It comes after the last step, so nothing that is trained or measured depends on it, and it takes
neither much time nor much memory: some rows, one at a time.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from training import devices
from training.job import Job
from training.mode import evaluating
from training.records import Records
from training.tasks.base import Examples, Task

SAMPLES = "samples.json"
ROWS = 12
SECONDS = 15.0
"""After so long no other row is begun."""

log = logging.getLogger(__name__)


def leave(
    job: Job,
    task: Task[Any],
    model: PreTrainedModel,
    examples: Examples,
    half: torch.dtype | None,
    records: Records,
) -> None:
    """Write `samples.json` (docs/job-folder.md): rows that lie evenly over the validation file, or
    where there is none the training file, each with what the task tells of it; and what the newest
    evaluation counted. Where that goes wrong it is told, and there is no such file."""
    try:
        rows = _told(task, model, examples, half)
    except Exception as error:
        log.exception("No samples.")
        records.log("warn", f"The report will show no samples: {type(error).__name__}: {error}")
        return
    content = {"split": "valid" if job.valid else "train", "rows": rows, **task.tallied}
    (job.folder / SAMPLES).write_text(json.dumps(content), encoding="utf-8")


def _told(
    task: Task[Any], model: PreTrainedModel, examples: Examples, half: torch.dtype | None
) -> list[dict[str, Any]]:
    places = np.unique(np.linspace(0, len(examples.ids) - 1, ROWS).astype(np.int64))
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    with evaluating(model):
        for place in places:
            if time.monotonic() - began > SECONDS:
                break
            with torch.inference_mode(), devices.autocast(model.device, half):
                told = task.tell(model, examples, np.array([place]))
            rows += [{"place": int(place), "told": one} for one in told]
    return rows
