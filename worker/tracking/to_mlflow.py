"""A run of MLflow, by its own client. A later attempt goes on with the run of the job."""

from __future__ import annotations

from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from worker.tracking.records import metric_values

STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
JOB_TAG = "luthier.job_id"


class ToMlflow:
    def __init__(self, task: dict[str, Any]) -> None:
        asked = task["integration"]["mlflow"]
        self._client = MlflowClient()
        found = self._client.get_experiment_by_name(asked["experiment"])
        experiment = (
            found.experiment_id if found else self._client.create_experiment(asked["experiment"])
        )
        earlier = self._client.search_runs(
            [experiment], f"tags.`{JOB_TAG}` = '{task['job_id']}'", max_results=1
        )
        if earlier:
            self._run = earlier[0].info.run_id
            return
        tags = {**(asked["tags"] or {}), JOB_TAG: task["job_id"]}
        name = asked["run_name"] or task["job_id"]
        self._run = self._client.create_run(experiment, tags=tags, run_name=name).info.run_id
        settings = [Param(name, str(value)) for name, value in task["settings"].items()]
        self._client.log_batch(self._run, params=settings)

    def log(self, records: list[dict[str, Any]]) -> None:
        metrics = [
            Metric(name, value, int(1000 * record["time"]), record["step"])
            for record in records
            for name, value in metric_values(record).items()
        ]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def end(self, told: dict[str, Any]) -> None:
        links = {name: told[name] for name in ("fine_tuned_model", "error") if told.get(name)}
        tags = [RunTag(f"luthier.{name}", str(value)) for name, value in links.items()]
        self._client.log_batch(self._run, tags=tags)
        if told["status"] in STATUS:
            self._client.set_terminated(self._run, STATUS[told["status"]])
