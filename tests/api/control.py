"""What a control worker does when it is rung, done in the test's own process."""

from __future__ import annotations

from typing import Any

from core.doorbell import Doorbell
from models import validation_leases, validations
from models.db import transaction
from tests.api.conftest import Live
from worker.admission import admit_waiting
from worker.context import Context
from worker.validation import validate


def context_of(live: Live) -> Context:
    return Context(live.settings, live.engine, live.store, Doorbell(live.settings))


def check_all(live: Live) -> None:
    """Until nothing waits to be checked or admitted."""
    context = context_of(live)
    while True:
        with transaction(live.engine) as session:
            validations.adopt(session)
            waiting = validation_leases.waiting(session)
        if not waiting:
            return
        for validation_id in waiting:
            validate(context, validation_id)
            admit_waiting(context, validation_id)


def got(live: Live, path: str) -> Any:
    with live.http() as http:
        answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def validation(live: Live, **asked: Any) -> Any:
    """Ask for a validation, have everything checked; what became of it."""
    with live.http() as http:
        answer = http.post("/fine_tuning/validations", json=asked)
    assert answer.status_code == 200, answer.text
    check_all(live)
    return got(live, f"/fine_tuning/validations/{answer.json()['id']}")


def job(live: Live, **asked: Any) -> Any:
    """Submit a job, have everything checked; the job."""
    with live.http() as http:
        answer = http.post("/fine_tuning/jobs", json={"model": "all-MiniLM-L6-v2"} | asked)
    assert answer.status_code == 200, answer.text
    check_all(live)
    return got(live, f"/fine_tuning/jobs/{answer.json()['id']}")
