"""A run of Weights & Biases, by its own library. Its id is the job's, so a later attempt goes on
with it."""

from __future__ import annotations

from typing import Any

import wandb

from worker.tracking.records import metric_values


class ToWandb:
    def __init__(self, task: dict[str, Any]) -> None:
        asked = task["integration"]["wandb"]
        self._run = wandb.init(
            project=asked["project"],
            entity=asked["entity"],
            name=asked["name"] or task["job_id"],
            tags=asked["tags"],
            id=task["job_id"],
            resume="allow",
            config=task["settings"],
            dir=task["folder"],
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                # What it would tell of this machine is nobody's business there.
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
            ),
        )

    def log(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self._run.log(metric_values(record), step=record["step"])

    def end(self, told: dict[str, Any]) -> None:
        for name in ("fine_tuned_model", "error"):
            if told.get(name):
                self._run.summary[name] = told[name]
        self._run.finish(exit_code=0 if told["status"] in ("finished", "interrupted") else 1)
