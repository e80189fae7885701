"""A job on its way to the queue while what it needs is away for a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from models import catalogue
from models.db import transaction
from models.jobs import Job
from tests.api import control
from tests.api.conftest import Live
from tests.rows import make_job, read_job

MODEL = "owner/of-the-hub"


@pytest.fixture
def job_id(live: Live, monkeypatch: pytest.MonkeyPatch) -> str:
    """Submitted while the hub was there, which has its model; it is away now."""
    file_id = live.upload()
    control.check_file(live, file_id)
    monkeypatch.setattr(live.settings, "hub", True)
    monkeypatch.setattr(live.settings, "hub_timeout_seconds", 1)
    # The address is read when the package is imported, so it is set where it is kept.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    request = {"model": MODEL, "training_file": file_id, "task": "text-classification"}
    return make_job(
        live.engine,
        live.project_id,
        queued=False,
        training_file_id=file_id,
        model=MODEL,
        request=request,
    )


def go_on(live: Live, job_id: str, **columns: int) -> Job:
    """Admit the job without waiting for its back-off."""
    with transaction(live.engine) as session:
        session.execute(text("UPDATE jobs SET not_before = NULL WHERE id = :id"), {"id": job_id})
        for name, value in columns.items():
            setattr(session.get_one(Job, job_id), name, value)
    control.admitted(live, job_id)
    return read_job(live.engine, job_id)


def test_a_hub_that_is_away_is_waited_for_and_costs_the_training_nothing(
    live: Live, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = go_on(live, job_id)
    assert (waiting.status, waiting.error, waiting.failures) == ("validating_files", None, 1)
    assert waiting.not_before is not None
    assert go_on(live, job_id).failures == 2
    folder = catalogue.PACKAGED["all-MiniLM-L6-v2"].path()
    monkeypatch.setattr(live.settings, "base_models", {MODEL: Path(str(folder))})
    queued = go_on(live, job_id)
    assert (queued.status, queued.error) == ("queued", None)
    assert (queued.failures, queued.failures_without_progress) == (0, 0)


def test_it_is_not_waited_for_without_end(live: Live, job_id: str) -> None:
    job = go_on(live, job_id, failures=live.settings.max_failures)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "unavailable")


def test_a_call_that_needs_it_may_be_repeated(live: Live, job_id: str) -> None:
    body = {"model": MODEL, "training_file": live.upload()}
    with live.http() as http:
        for answer in (http.post("/fine_tuning/jobs", json=body), http.get(f"/models/{MODEL}")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                503,
                "model_unavailable",
            )
            assert answer.json()["error"]["param"] == "model"
            assert "x-should-retry" not in answer.headers
