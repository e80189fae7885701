"""What a job leaves to look at, fetched by the unmodified `openai` package from a live service."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.conftest import Service, start_service, stop_service

ROWS = [f"{word} film {i},{word}" for i in range(8) for word in ("good", "bad")]
CSV = "\n".join(["text,label", *ROWS, ""]).encode()
ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=service.base_url, api_key=service.key) as client:
        yield client


def start(client: OpenAI, steps: int, **more: object) -> str:
    file = client.files.create(file=("reviews.csv", CSV), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model="all-MiniLM-L6-v2",
        training_file=file.id,
        validation_file=file.id,
        extra_body={
            **more,
            "task": "text-classification",
            "hyperparameters": {"max_steps": steps, "batch_size": 4, "eval_every": 2},
        },
    ).id


def ended(client: OpenAI, job_id: str) -> FineTuningJob:
    deadline = time.monotonic() + 250
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in ENDED:
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    return job


def table(client: OpenAI, job: FineTuningJob) -> list[dict[str, str]]:
    """The first result file, as code written for OpenAI reads it."""
    content = client.files.content(job.result_files[0]).read().decode()
    assert content.startswith(
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,"
    )
    return list(csv.DictReader(io.StringIO(content)))


@pytest.fixture(scope="module")
def job(client: OpenAI) -> FineTuningJob:
    job = ended(client, start(client, 3))
    assert job.status == "succeeded", job.error
    return job


def test_the_series_is_a_table_in_openais_form(client: OpenAI, job: FineTuningJob) -> None:
    file = client.files.retrieve(job.result_files[0])
    assert (file.purpose, file.filename) == ("fine-tune-results", f"{job.id}-metrics.csv")
    rows = table(client, job)
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["train_loss"]) > 0 and row["train_accuracy"] for row in rows)
    assert [bool(row["valid_loss"]) for row in rows] == [False, True, True]
    # What is called the accuracy of tokens there is that of rows here.
    assert [row["valid_mean_token_accuracy"] for row in rows] == [
        row["valid_accuracy"] for row in rows
    ]
    assert all(float(row["train_learning_rate"]) >= 0 for row in rows)


def test_the_report_and_the_event_file_come_after_it(client: OpenAI, job: FineTuningJob) -> None:
    files = [client.files.retrieve(file_id) for file_id in job.result_files]
    assert {file.purpose for file in files} == {"fine-tune-results"}
    by_name = {file.filename: client.files.content(file.id).read() for file in files[1:]}
    html, png = (by_name.pop(f"{job.id}-report.{ending}") for ending in ("html", "png"))
    assert png.startswith(b"\x89PNG")
    assert b"good film" in html
    assert b"data:image/png;base64," in html
    ((name, events),) = by_name.items()
    assert name.startswith("events.out.tfevents.")
    assert b"valid/accuracy" in events
    told = client.fine_tuning.jobs.list_events(job.id, limit=100)
    assert not [event for event in told if event.level == "warn"]


def test_a_cancelled_job_keeps_what_it_measured(client: OpenAI) -> None:
    job_id = start(client, 100_000)
    deadline = time.monotonic() + 250
    while not any(
        event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job_id, limit=5)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    client.fine_tuning.jobs.cancel(job_id)
    job = ended(client, job_id)
    assert job.status == "cancelled"
    steps = [int(row["step"]) for row in table(client, job)]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_reports_to_its_trackers(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = MlflowClient(uri)
    store.search_experiments()  # Makes the tables, which takes its time.
    service = start_service(
        tmp_path / "data", LUTHIER_MLFLOW_TRACKING_URI=uri, LUTHIER_WANDB_OFFLINE="true"
    )
    try:
        with OpenAI(base_url=service.base_url, api_key=service.key) as client:
            asked = [
                {"type": "wandb", "wandb": {"project": "reviews", "tags": ["nightly"]}},
                {"type": "mlflow", "mlflow": {"experiment": "reviews"}},
            ]
            job = ended(client, start(client, 30, integrations=asked))
            told = client.fine_tuning.jobs.list_events(job.id, limit=100)
            warnings = [event.message for event in told if event.level == "warn"]
    finally:
        stop_service(service)
    assert job.status == "succeeded"
    assert job.integrations is not None
    assert job.integrations[0].wandb.project == "reviews"
    experiment = store.get_experiment_by_name("reviews")
    assert experiment is not None, warnings
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED", warnings
    assert len(store.get_metric_history(run.info.run_id, "train/loss")) == 30
    assert run.data.tags["luthier.fine_tuned_model"] == job.fine_tuned_model
    assert list((tmp_path / "data").rglob("*.wandb")), warnings
