"""Trackers as real processes, and what they wrote read back by the trackers' own libraries."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.settings import Settings
from models.jobs import Job
from worker import tracking
from worker.context import Context
from worker.tracking import Tracking

MLFLOW = {"type": "mlflow", "mlflow": {"experiment": "reviews", "tags": {"team": "search"}}}
WANDB = {"type": "wandb", "wandb": {"project": "reviews", "tags": ["nightly"], "name": "first"}}
LOSSES = {1: 0.9, 2: 0.5, 3: 0.25}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """Of no database and no broker: trackers need neither."""
    opened = Context.open(
        Settings(
            data_dir=tmp_path / "data",
            database_url="postgresql://nobody@127.0.0.1:1/none",
            redis_url="redis://127.0.0.1:1/0",
            mlflow_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
            wandb_offline=True,
        )
    )
    yield opened
    opened.engine.dispose()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(tracking, "END_SECONDS", 240.0)


def job(*integrations: dict[str, Any]) -> Job:
    request = {"model": "m", "training_file": "file-1", "integrations": list(integrations)}
    return Job(id="ftjob-1", request=request, resolved={"task": "fill-mask", "batch_size": 8})


def report(running: Tracking) -> None:
    for step, loss in LOSSES.items():
        record = {"type": "metrics", "time": 1.8e9 + step, "step": step}
        running.add(record | {"split": "train", "values": {"loss": loss, "grad_norm": None}})
    running.add(record | {"split": "valid", "values": {"accuracy": 0.75}})


def folder(path: Path, name: str) -> Path:
    made = path / name
    made.mkdir()
    return made


@pytest.mark.usefixtures("patient")
def test_mlflow_has_one_run_of_a_job_whatever_its_attempts(
    context: Context, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    with Tracking(context, job(MLFLOW), folder(tmp_path, "a")) as running:
        report(running)
        assert running.end("interrupted") == []
    client = MlflowClient(context.settings.mlflow_tracking_uri)
    experiment = client.get_experiment_by_name("reviews")
    assert experiment is not None
    (first,) = client.search_runs([experiment.experiment_id])
    assert first.info.status == "RUNNING"
    with Tracking(context, job(MLFLOW), folder(tmp_path, "b")) as running:
        assert running.end("finished", fine_tuned_model="ft:m:p::1") == []
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (first.info.run_id, "FINISHED")
    assert run.info.run_name == "ftjob-1"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {point.step: point.value for point in history} == LOSSES
    assert min(point.timestamp for point in history) == 1_800_000_001_000
    assert run.data.metrics == {"train/loss": 0.25, "valid/accuracy": 0.75}
    assert run.data.params["batch_size"] == "8"
    assert run.data.tags["team"] == "search"
    assert run.data.tags["luthier.fine_tuned_model"] == "ft:m:p::1"


def of_log(data: bytes) -> Iterator[bytes]:
    """The records of an offline run: LevelDB's log format, behind a header of seven bytes."""
    block, header = 32_768, 7
    place, whole = header, b""
    while place < len(data):
        if (left := block - place % block) < header:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + header : place + header + size]
        place += header + size
        if kind in (1, 4):  # All of a record, or its last part.
            yield whole
            whole = b""


@pytest.mark.usefixtures("patient")
def test_weights_and_biases_has_the_series(context: Context, tmp_path: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    with Tracking(context, job(WANDB), folder(tmp_path, "a")) as running:
        report(running)
        assert running.end("finished", fine_tuned_model="ft:m:p::1") == []
    (path,) = context.scratch("wandb").rglob("*.wandb")
    records = []
    for data in of_log(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        records.append(record)
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.project, run.run_id, run.display_name) == ("reviews", "ftjob-1", "first")
    assert list(run.tags) == ["nightly"]
    config = {item.key: item.value_json for item in run.config.update}
    assert config["batch_size"] == "8"
    history = [
        {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [float(row["train/loss"]) for row in history] == list(LOSSES.values())
    assert [int(row["_step"]) for row in history] == list(LOSSES)
    assert float(history[-1]["valid/accuracy"]) == 0.75
    summary = {
        item.key: item.value_json
        for record in records
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert summary["fine_tuned_model"] == '"ft:m:p::1"'


def trackers() -> list[psutil.Process]:
    """Of this process, in the order in which they were started."""
    children = psutil.Process().children()
    return [child for child in children if "worker.tracking" in child.cmdline()]


def test_one_that_hangs_delays_nothing_but_the_end_and_that_for_a_stated_time(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "END_SECONDS", 1.0)
    with Tracking(context, job(MLFLOW, WANDB), folder(tmp_path, "a")) as running:
        children = trackers()
        assert len(children) == 2
        for child in children:
            os.kill(child.pid, signal.SIGSTOP)
        began = time.process_time()
        for _ in range(1000):
            report(running)
        assert time.process_time() - began < 1.0
        assert running.faults() == []
        began = time.monotonic()
        faults = running.end("finished")
        assert time.monotonic() - began < 5.0
        assert [fault.split(" ended")[0] for fault in faults] == [
            "Reporting to MLflow",
            "Reporting to Weights & Biases",
        ]
    assert not any(child.is_running() for child in children)


def test_one_that_fails_says_why_once(context: Context, tmp_path: Path) -> None:
    elsewhere = {"type": "mlflow", "mlflow": {"experiment": "e", "tracking_uri": "gopher://x"}}
    with Tracking(context, job(elsewhere), folder(tmp_path, "a")) as running:
        deadline = time.monotonic() + 120
        while not (faults := running.faults()):
            assert time.monotonic() < deadline
            report(running)
            time.sleep(0.05)
        (fault,) = faults
        assert "gopher" in fault
        assert "The job is not affected" in fault
        assert running.faults() == []
        assert running.end("finished") == []


def test_a_tracker_is_given_its_own_credentials_alone(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "for-mlflow")
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    settings = context.settings.model_copy(update={"wandb_api_key": None})
    with Tracking(context, job(MLFLOW, WANDB), folder(tmp_path, "a")):
        mlflow, wandb = (child.environ() for child in trackers())
    assert settings.wandb_api_key is None
    assert mlflow["MLFLOW_TRACKING_TOKEN"] == "for-mlflow"
    assert "MLFLOW_TRACKING_TOKEN" not in wandb
    assert not {"DATABASE_URL", "WANDB_API_KEY"} & {*mlflow, *wandb}
