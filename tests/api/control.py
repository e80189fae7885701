"""What a control worker does when it is rung, done in the test's own process.

Only for what a test names: checking a file takes a process of its own, and most tests upload some
that they do not look at.
"""

from __future__ import annotations

from typing import Any

from core.doorbell import Doorbell
from models import validations
from models.db import transaction
from tests.api.conftest import Live
from worker.admission import admit_waiting
from worker.context import Context
from worker.validation import validate

MOST_RINGS = 3
"""Of a job: for the check that it found under way, then for one of its own."""


def context_of(live: Live) -> Context:
    return Context(live.settings, live.engine, live.store, Doorbell(live.settings))


def got(live: Live, path: str) -> Any:
    with live.http() as http:
        answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ring(live: Live, validation_id: str) -> None:
    context = context_of(live)
    validate(context, validation_id)
    admit_waiting(context, validation_id)


def check_file(live: Live, *file_ids: str) -> None:
    """Do the check that the upload of each began."""
    for file_id in file_ids:
        ring(live, got(live, f"/files/{file_id}")["validation"])


def validation(live: Live, **asked: Any) -> Any:
    """Ask for a validation, and do it; what became of it."""
    with live.http() as http:
        answer = http.post("/fine_tuning/validations", json=asked)
    assert answer.status_code == 200, answer.text
    ring(live, answer.json()["id"])
    return got(live, f"/fine_tuning/validations/{answer.json()['id']}")


def job(live: Live, **asked: Any) -> Any:
    """Submit a job, and do what it waits for; the job."""
    with live.http() as http:
        answer = http.post("/fine_tuning/jobs", json={"model": "all-MiniLM-L6-v2"} | asked)
    assert answer.status_code == 200, answer.text
    return admitted(live, answer.json()["id"])


def admitted(live: Live, job_id: str) -> Any:
    """Do what a job waits for, as often as it may take; the job."""
    for _ in range(MOST_RINGS):
        with transaction(live.engine) as session:
            validations.adopt(session)
        found = got(live, f"/fine_tuning/jobs/{job_id}")
        if found["status"] != "validating_files":
            break
        ring(live, found["validation"])
    return got(live, f"/fine_tuning/jobs/{job_id}")
