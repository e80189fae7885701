"""What a job would take, its twin, and jobs side by side."""

from __future__ import annotations

import math
from typing import Any

import pytest
from click.testing import CliRunner
from luthier import Luthier
from luthier.command.main import cli

from models import past_runs, workers
from models.db import transaction
from models.jobs import Job
from models.past_runs import PastRun
from models.state import Status
from tests.api import control
from tests.api.conftest import Live
from tests.api.rows import RESOLVED, make_model
from tests.rows import make_job

MODEL = "all-MiniLM-L6-v2"
DEVICE = "cpu: x86_64, 2 threads"
ROWS = 40


@pytest.fixture(scope="module")
def file(live: Live) -> str:
    rows = "".join(f"text number {n} with some words,{'ab'[n % 2]}\n" for n in range(ROWS))
    file_id = live.upload(f"text,label\n{rows}".encode())
    control.check_file(live, file_id)
    return file_id


def estimate(live: Live, file: str, status: int = 200, **more: Any) -> Any:
    body = {"model": MODEL, "training_file": file, "task": "text-classification"} | more
    with live.http() as http:
        answer = http.post("/fine_tuning/jobs/estimate", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def report_worker(live: Live, memory: int, capabilities: tuple[str, ...] = ("cpu",)) -> str:
    details = {"device": "cpu", "device_name": DEVICE, "memory_bytes": memory, "versions": {}}
    with transaction(live.engine) as session:
        workers.report(session, "worker-estimates", "here", list(capabilities), details)
    return "worker-estimates"


def past_run(live: Live, told: Any, factor: float) -> None:
    """A run that took so many times what was reckoned roughly."""
    rough = {"start": 4.0, "step": 0.1, "evaluation": 1.0, "save": 1.0, "finish": 2.0}
    with transaction(live.engine) as session:
        session.add(
            PastRun(
                job_id=make_job(live.engine, live.project_id, queued=False),
                task="text-classification",
                model=MODEL,
                tuning="full",
                device=DEVICE,
                figures={
                    "rough": rough,
                    "rough_memory": told["peak_memory_bytes"],
                    "true": {name: value * factor for name, value in rough.items()},
                },
                seconds=100.0,
                predicted_seconds=80.0,
                peak_memory_bytes=2 * told["peak_memory_bytes"],
                predicted_memory_bytes=told["peak_memory_bytes"],
            )
        )


def test_without_a_worker_or_a_past(live: Live, file: str) -> None:
    told = estimate(live, file, method={
        "type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 8}}
    })  # fmt: skip
    assert (told["rows"], told["steps"], told["resolved"]["batch_size"]) == (40, 15, 8)
    assert (told["fits"], told["worker"], told["calibrated_by"]) == (False, None, 0)
    assert told["seconds_low"] < told["seconds"] < told["seconds_high"]
    # About 7 tokens a row, three times over.
    assert 40 * 3 * 4 < told["trained_tokens"] < 40 * 3 * 16
    # 22.7 million weights with gradient and AdamW's two moments, 16 bytes each, and the libraries.
    assert told["peak_memory_bytes"] == pytest.approx(500e6 + 22.7e6 * 16, rel=0.1)
    assert any("No worker is alive" in reason for reason in told["reasons"])


def test_past_runs_set_it_right(live: Live, file: str) -> None:
    worker = report_worker(live, 8 * 2**30)
    first = estimate(live, file)
    assert (first["fits"], first["worker"]) == (True, worker)
    for factor in (2.9, 3.0, 3.1):
        past_run(live, first, factor)
    told = estimate(live, file)
    assert told["seconds"] == pytest.approx(3 * first["seconds"], rel=0.01)
    assert told["peak_memory_bytes"] == pytest.approx(2 * first["peak_memory_bytes"], rel=0.01)
    assert (told["calibrated_by"], told["error"]) == (3, pytest.approx(0.2))
    width = told["seconds_high"] / told["seconds_low"]
    assert math.log(width) < math.log(first["seconds_high"] / first["seconds_low"]) / 3


def test_what_does_not_fit_says_so(live: Live, file: str) -> None:
    report_worker(live, 2**29)
    told = estimate(live, file)
    assert not told["fits"]
    assert any("0.5 GiB" in reason for reason in told["reasons"])
    gpu = estimate(live, file, resources={"device": "cuda"})
    assert any("has cuda" in reason for reason in gpu["reasons"])


def test_packs_hold_no_more_than_their_rows(live: Live, file: str) -> None:
    """A bound on tokens that is far beyond the rows of a micro-batch takes no memory."""
    report_worker(live, 8 * 2**30)
    usual = estimate(live, file)
    roomy = estimate(live, file, hyperparameters={"micro_batch_tokens": 100_000_000})
    assert roomy["peak_memory_bytes"] == usual["peak_memory_bytes"]
    tight = estimate(live, file, hyperparameters={"micro_batch_tokens": 16, "batch_size": 32})
    wide = estimate(live, file, hyperparameters={"batch_size": 32})
    assert tight["peak_memory_bytes"] < wide["peak_memory_bytes"]


def test_files_that_are_not_checked_yet(live: Live) -> None:
    found = estimate(live, live.upload(b"text,label\nx,a\ny,b\n"), status=409)
    assert found["error"]["code"] == "validation_pending"
    assert "/v1/fine_tuning/validations/ftval-" in found["error"]["message"]


def test_files_that_are_bad(live: Live) -> None:
    bad = live.upload(b"text,label\nx,a\ny,\n")
    with live.http() as http:
        asked = {"training_file": bad, "task": "text-classification"}
        validation = http.post("/fine_tuning/validations", json=asked).json()["id"]
    control.ring(live, validation)
    found = estimate(live, bad, status=400)
    assert found["error"]["param"] == "training_file"


def test_a_queued_job_keeps_what_it_was_thought_to_take(live: Live, file: str) -> None:
    report_worker(live, 8 * 2**30)
    told = estimate(live, file)
    job = control.job(live, training_file=file, task="text-classification")
    assert job["status"] == "queued"
    with transaction(live.engine) as session:
        row = session.get_one(Job, job["id"])
        assert row.predicted is not None
        assert row.predicted["seconds"] == pytest.approx(told["seconds"], rel=0.1)
    assert job["queue"]["estimated_start"] is not None
    with live.http() as http:
        http.post(f"/fine_tuning/jobs/{job['id']}/cancel")


class TestRemembering:
    def finished(self, live: Live, **values: Any) -> str:
        """A job that took 100 s for 40 steps, after it was thought to take 50."""
        spec = {
            "task": "text-classification", "model": MODEL, "model_revision": None, "tuning": "full",
            "seed": 1, "labels": [], "train_rows": 80, "valid_rows": 0, "train_sha256": "",
            "valid_sha256": None, "n_epochs": 4, "total_steps": 40, "steps_per_epoch": 10,
            "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-4, "warmup_steps": 0,
            "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.9, "adam_epsilon": 1e-8,
            "max_grad_norm": 1.0, "max_length": None, "eval_every": 10, "checkpoint_every": 20,
            "early_stopping_patience": None, "metric": "loss", "greater_is_better": False,
        }  # fmt: skip
        rough = {"start": 5.0, "step": 1.0, "evaluation": 1.0, "save": 1.0, "finish": 1.0}
        job_id = make_job(live.engine, live.project_id, resolved=spec)
        with transaction(live.engine) as session:
            job = session.get_one(Job, job_id)
            columns = {
                "attempts": 1,
                "progress": {"step": 40},
                "environment": {"device": "cpu: other"},
                "predicted": {"rough": rough, "seconds": 50.0, "rough_memory_bytes": 1,
                              "peak_memory_bytes": 1},
            } | values  # fmt: skip
            for name, value in columns.items():
                setattr(job, name, value)
            job.started_at = job.created_at
            job.finished_at = job.created_at.fromtimestamp(
                job.created_at.timestamp() + 100, tz=job.created_at.tzinfo
            )
            job.status = Status.SUCCEEDED
        with transaction(live.engine) as session:
            past_runs.remember(session, job_id, {"step": 2.0, "save": 3.0, "finish": 4.0})
        return job_id

    def test_what_was_not_measured_is_the_start(self, live: Live) -> None:
        job_id = self.finished(live)
        with transaction(live.engine) as session:
            kept = session.get_one(PastRun, job_id)
        assert kept.figures["true"] == {"step": 2.0, "save": 3.0, "finish": 4.0, "start": 10.0}
        assert kept.error == 0.5

    @pytest.mark.parametrize("values", [{"attempts": 2}, {"progress": {"step": 30}}])
    def test_a_broken_run_tells_nothing(self, live: Live, values: dict[str, Any]) -> None:
        job_id = self.finished(live, **values)
        with transaction(live.engine) as session:
            assert session.get(PastRun, job_id) is None


class TestClones:
    def test_the_same_but_for_what_is_said(self, live: Live, file: str) -> None:
        body = {
            "model": MODEL,
            "training_file": file,
            "task": "text-classification",
            "suffix": "first",
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 2, "weight_decay": 0.5}},
            },
        }
        with live.http() as http:
            original = http.post("/fine_tuning/jobs", json=body).json()
            hyperparameters = {"supervised": {"hyperparameters": {"n_epochs": 7}}}
            changes = {"suffix": None, "method": hyperparameters}
            clone = http.post(f"/fine_tuning/jobs/{original['id']}/clone", json=changes).json()
            twin = http.post(f"/fine_tuning/jobs/{original['id']}/clone").json()
            bad = http.post(f"/fine_tuning/jobs/{original['id']}/clone", json={"n_epochs": 1})
        assert clone["id"] != original["id"]
        assert (clone["cloned_from"], original["cloned_from"]) == (original["id"], None)
        assert (clone["suffix"], clone["seed"]) == (None, original["seed"])
        shown = clone["method"]["supervised"]["hyperparameters"]
        assert (shown["n_epochs"], shown["weight_decay"]) == (7, 0.5)
        assert twin["method"] == original["method"]
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, "n_epochs")


class TestComparing:
    def test_differences(self, live: Live) -> None:
        first = make_job(live.engine, live.project_id, resolved=RESOLVED)
        other = RESOLVED | {"learning_rate": 2e-4, "lora": {"rank": 4}}
        second = make_job(live.engine, live.project_id, resolved=other)
        with live.http() as http:
            found = http.get(f"/fine_tuning/compare?job={first}&job={second}").json()
        assert [job["id"] for job in found["jobs"]] == [first, second]
        assert {row["path"]: row["values"] for row in found["differences"]} == {
            "resolved.learning_rate": [1e-4, 2e-4],
            "resolved.lora.rank": [None, 4],
        }

    def test_a_strangers_job_cannot_be_compared(self, live: Live) -> None:
        job = make_job(live.engine, live.project_id)
        with live.http(live.stranger_key) as http:
            assert http.get(f"/fine_tuning/compare?job={job}&job={job}").status_code == 404
        with live.http() as http:
            assert http.get(f"/fine_tuning/compare?job={job}").status_code == 400


def test_the_client_has_it_all(live: Live, file: str) -> None:
    client = Luthier(base_url=live.base_url, api_key=live.key, max_retries=0)
    jobs = client.fine_tuning.jobs
    asked = {"model": MODEL, "training_file": file, "task": "text-classification", "suffix": "x"}
    told = jobs.estimate(**asked)  # type: ignore[arg-type]
    assert told.steps == told.resolved["total_steps"]
    original = jobs.create(**asked)  # type: ignore[arg-type]
    clone = jobs.clone(original.id, {"suffix": None})
    assert (clone.cloned_from, clone.suffix) == (original.id, None)
    assert jobs.clone(original.id).suffix == "x"
    found = jobs.compare(original.id, clone.id)
    assert [job.id for job in found.jobs] == [original.id, clone.id]
    model = make_model(live, "client").id
    asked_of = client.predictions.create(model=model, input={"text": "a"}, wait=0)
    assert client.predictions.retrieve(asked_of.id).status == "queued"


@pytest.mark.parametrize(
    "words",
    [
        [
            "estimate",
            "--model",
            MODEL,
            "--training-file",
            "{file}",
            "--task",
            "text-classification",
        ],
        ["clone", "{job}", "--set", "n_epochs=2"],
        ["compare", "{job}", "{job}"],
    ],
)
def test_the_command_has_it_too(live: Live, file: str, words: list[str]) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 4}}}
    request = {"model": MODEL, "training_file": file, "method": method}
    job = make_job(live.engine, live.project_id, training_file_id=file, request=request)
    environment = {"LUTHIER_BASE_URL": live.base_url, "LUTHIER_API_KEY": live.key}
    given = [word.format(file=file, job=job) for word in words]
    done = CliRunner().invoke(cli, ["jobs", *given], env=environment, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if words[0] == "estimate":
        assert "steps " in done.output
    if words[0] == "clone":
        with live.http() as http:
            made = http.get(f"/fine_tuning/jobs/{done.output.strip()}").json()
        shown = made["method"]["supervised"]["hyperparameters"]
        assert (shown["n_epochs"], shown["batch_size"]) == (2, 4)
