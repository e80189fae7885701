"""Jobs as they are shown, stopped and resumed, and what they leave behind."""

from __future__ import annotations

import csv
import io
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from models import events, leases, metrics
from models.db import transaction
from models.state import Status
from tests.api.conftest import Live
from tests.api.rows import make_model, make_running_job
from tests.rows import make_job, read_job

MEASURED = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)


def get(live: Live, url: str, **headers: str) -> httpx.Response:
    with live.http() as http:
        return http.get(f"/fine_tuning/jobs/{url}", headers=headers)


def post(live: Live, url: str) -> httpx.Response:
    with live.http() as http:
        return http.post(f"/fine_tuning/jobs/{url}")


def retrieve(live: Live, job_id: str) -> dict[str, Any]:
    answer = get(live, job_id)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def test_hyperparameters_are_shown_as_asked_then_as_resolved(live: Live) -> None:
    asked = {"n_epochs": 5, "weight_decay": 0.5}
    request = {
        "model": "all-MiniLM-L6-v2",
        "training_file": "file-x",
        "method": {"type": "supervised", "supervised": {"hyperparameters": asked}},
    }
    waiting = retrieve(live, make_job(live.engine, live.project_id, request=request))
    shown = {"n_epochs": 5, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert waiting["hyperparameters"] == shown
    assert waiting["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": shown | {"weight_decay": 0.5}},
    }
    running = retrieve(live, make_running_job(live))
    assert running["hyperparameters"] == {
        "n_epochs": 3,
        "batch_size": 8,
        "learning_rate_multiplier": 2.0,
    }


def test_a_running_job(live: Live) -> None:
    job = retrieve(live, make_running_job(live, step=10))
    assert job["status"] == "running"
    assert job["phase"] == "training"
    assert job["progress"] == {"step": 10, "total_steps": 40, "epoch": 0.75, "percent": 25.0}
    assert job["metrics"]["latest"] == {"train": {"step": 10, "loss": 0.4}}
    assert job["queue"] is None
    (attempt,) = job["attempts"]
    assert (attempt["number"], attempt["worker_id"], attempt["ended_at"]) == (1, "worker-a", None)
    assert job["resolved"]["total_steps"] == 40
    # Three quarters are left, so three times what the first quarter took.
    elapsed = time.time() - job["started_at"]
    assert job["estimated_finish"] == pytest.approx(time.time() + 3 * elapsed, abs=5)


def test_the_queues_order(live: Live) -> None:
    low = make_job(live.engine, live.project_id, priority=90)
    high = make_job(live.engine, live.project_id, priority=100)
    later = make_job(live.engine, live.project_id, priority=90)
    places = {job: retrieve(live, job)["queue"]["position"] for job in (low, high, later)}
    assert places == {high: 1, low: 2, later: 3}
    with live.http() as http:
        listed = http.get("/fine_tuning/jobs", params={"limit": 3}).json()["data"]
    assert {job["id"]: job["queue"]["position"] for job in listed} == places
    for job in places:
        assert post(live, f"{job}/cancel").json()["queue"] is None


def test_a_failed_job_says_why(live: Live) -> None:
    job_id = make_running_job(live)
    fence = read_job(live.engine, job_id).fence
    why = {"code": "non_finite_loss", "message": "The loss was NaN at step 3.", "param": None}
    with transaction(live.engine) as session:
        leases.end(session, job_id, fence, Status.FAILED, "non_finite_loss", error=why)
    job = retrieve(live, job_id)
    assert (job["status"], job["error"]) == ("failed", why)
    assert job["finished_at"] is not None
    assert job["estimated_finish"] is None
    assert job["attempts"][0]["outcome"] == "non_finite_loss"


class TestStopping:
    def test_queued(self, live: Live) -> None:
        job = make_job(live.engine, live.project_id)
        assert post(live, f"{job}/pause").json()["status"] == "paused"
        assert post(live, f"{job}/pause").json()["status"] == "paused"
        assert post(live, f"{job}/resume").json()["status"] == "queued"
        assert post(live, f"{job}/cancel").json()["status"] == "cancelled"
        assert post(live, f"{job}/cancel").json()["status"] == "cancelled"
        refused = post(live, f"{job}/resume")
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "job_finished"
        assert refused.headers["x-should-retry"] == "false"

    def test_running_is_only_asked(self, live: Live) -> None:
        job = make_running_job(live)
        answer = post(live, f"{job}/cancel?mode=now").json()
        assert (answer["status"], answer["desired"]) == ("running", "cancel")
        assert read_job(live.engine, job).stop_mode == "now"
        assert post(live, f"{job}/pause").json()["error"]["code"] == "job_cancelling"

    def test_an_unknown_mode(self, live: Live) -> None:
        answer = post(live, f"{make_job(live.engine, live.project_id)}/cancel?mode=later")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "mode"


def test_events_newest_first_with_their_data(live: Live) -> None:
    job = make_job(live.engine, live.project_id, queued=False)
    with transaction(live.engine) as session:
        events.add(session, job, "Watch out.", level="warn", data={"row": 3})
    first, *rest = get(live, f"{job}/events").json()["data"]
    assert (first["level"], first["message"], first["data"]) == ("warn", "Watch out.", {"row": 3})
    assert len(rest) == 2


def test_checkpoints(live: Live) -> None:
    model = make_model(live, "shown", step=20)
    (shown,) = get(live, f"{model.job_id}/checkpoints").json()["data"]
    assert shown["fine_tuned_model_checkpoint"] == model.id
    assert shown["metrics"]["step"] == 20
    assert shown["metrics"]["valid_accuracy"] == 0.9
    with live.http() as http:
        files = http.get(f"/models/{model.id}/files").json()["data"]
        weights = http.get(f"/models/{model.id}/files/model.safetensors")
    assert len(files) == 3
    assert weights.status_code == 200


@pytest.fixture(scope="module")
def job(live: Live) -> str:
    """One with seven training points and two of validation."""
    job = make_job(live.engine, live.project_id)
    measured = [("train", step, {"loss": 1 / step, "lr": 1e-4}) for step in range(1, 8)]
    measured += [("valid", step, {"loss": 0.5, "f1": 0.25}) for step in (4, 7)]
    points = [
        {"split": split, "step": step, "values": values, "created_at": MEASURED}
        for split, step, values in measured
    ]
    with transaction(live.engine) as session:
        metrics.write(session, job, points)
    return job


class TestMetrics:
    def test_json(self, live: Live, job: str) -> None:
        answer = get(live, f"{job}/metrics").json()
        assert not answer["has_more"]
        assert [(p["step"], p["split"]) for p in answer["data"]][3:5] == [
            (4, "train"),
            (4, "valid"),
        ]
        assert answer["data"][0] == {
            "step": 1,
            "split": "train",
            "values": {"loss": 1.0, "lr": 1e-4},
            "created_at": MEASURED.timestamp(),
        }

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 8, 9])
    def test_pages_hold_whole_steps(self, live: Live, job: str, limit: int) -> None:
        seen: list[tuple[int, str]] = []
        more, after = True, -1
        while more:
            page = get(live, f"{job}/metrics?limit={limit}&after_step={after}").json()
            seen += [(point["step"], point["split"]) for point in page["data"]]
            more, after = page["has_more"], page["data"][-1]["step"]
        assert len(seen) == len(set(seen)) == 9

    def test_one_split(self, live: Live, job: str) -> None:
        answer = get(live, f"{job}/metrics?split=valid&after_step=4").json()
        assert [point["step"] for point in answer["data"]] == [7]

    @pytest.mark.parametrize(
        ("query", "accept", "is_csv"),
        [
            ("?format=csv", "*/*", True),
            ("", "text/csv", True),
            ("?format=json", "text/csv", False),
            ("", "*/*", False),
        ],
    )
    def test_csv(self, live: Live, job: str, query: str, accept: str, is_csv: bool) -> None:
        answer = get(live, f"{job}/metrics{query}", Accept=accept)
        assert answer.headers["content-type"].startswith("text/csv") == is_csv
        if is_csv:
            rows = list(csv.DictReader(io.StringIO(answer.text)))
            assert len(rows) == 9
            assert rows[4] == {"step": "4", "split": "valid", "loss": "0.5", "lr": "", "f1": "0.25"}


def test_logs(live: Live) -> None:
    answer = get(live, f"{make_running_job(live)}/logs")
    assert answer.text == "first line\nlast line\n"
    assert answer.headers["content-type"].startswith("text/plain")
    assert get(live, f"{make_job(live.engine, live.project_id)}/logs").text == ""


def test_a_random_seed_differs_from_job_to_job(live: Live) -> None:
    body = {"model": "all-MiniLM-L6-v2", "training_file": live.upload()}
    with live.http() as http:
        seeds = {http.post("/fine_tuning/jobs", json=body).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_what_the_worker_reads(live: Live) -> None:
    body = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "training_file": live.upload(),
        "resources": {"gpus": 1},
        "priority": 3,
        "column_mapping": {"text": "review"},
    }
    with live.http() as http:
        job = read_job(live.engine, http.post("/fine_tuning/jobs", json=body).json()["id"])
    assert job.request == body
    assert job.model == "all-MiniLM-L6-v2"
    assert (job.requires, job.priority, job.status) == (["cuda"], 3, "validating_files")


def test_tasks(live: Live) -> None:
    with live.http() as http:
        tasks = {task["id"]: task for task in http.get("/tasks").json()["data"]}
    task = tasks["text-classification"]
    assert task["trainable"]
    assert [column["name"] for column in task["shapes"][0]["columns"]] == [
        "text",
        "text_pair",
        "label",
    ]
    assert task["example_text"]["csv"].startswith("text,label\n")
    assert "accuracy" in task["metrics"]
    epochs = task["hyperparameters"]["properties"]["n_epochs"]
    assert epochs["default"] == "auto"
    assert all(task["trainable"] for task in tasks.values())
