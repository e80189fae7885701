"""A control worker that is to end hands back what it holds, and that counts as no try of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from core.doorbell import CONTROL_QUEUE
from models import leases, validation_leases, validations
from models.data_spec import ValidationRequest
from models.db import transaction
from models.state import Status
from models.validations import Validation, ValidationStatus
from tests.rows import make_file, make_job, make_project, read_job, validated
from worker.admission import admit
from worker.context import Context
from worker.validation import validate

SOON = 10.0
"""Seconds, on a busy machine; what hangs here does so for a minute."""


@pytest.fixture
def context(context_with: Callable[..., Context]) -> Context:
    return context_with(hub=True, hub_timeout_seconds=60.0)


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        yield


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ends_soon(context: Context, work: threading.Thread) -> None:
    """Tell it to end, and see that it does, and that those that stay are rung for."""
    before = context.doorbell.pending(CONTROL_QUEUE)
    context.stopping.set()
    work.join(SOON)
    assert not work.is_alive()
    assert context.doorbell.pending(CONTROL_QUEUE) == before + 1


def test_a_validation_is_handed_back_and_its_child_is_ended(context: Context) -> None:
    project = make_project(context.engine)
    rows = b"text,label\n" + b"good,pos\nbad,neg\n" * 1_000_000
    written = context.store.write_bytes("files/of-the-test", rows)
    file_id = make_file(
        context.engine,
        project,
        storage_key="files/of-the-test",
        sha256=written.sha256,
        bytes=written.bytes,
    )
    with transaction(context.engine) as session:
        asked = ValidationRequest(training_file=file_id)
        validation_id = validations.create(session, project, asked).id
    work = threading.Thread(target=validate, args=(context, validation_id))
    work.start()

    def readers() -> list[psutil.Process]:
        children = psutil.Process().children()
        return [child for child in children if "ingest.child" in child.cmdline()]

    until(readers)
    ends_soon(context, work)
    assert readers() == []
    with transaction(context.engine) as session:
        row = session.get_one(Validation, validation_id)
        assert (row.status, row.tries, row.failures) == (ValidationStatus.QUEUED, 0, 0)
        assert (row.worker_id, row.lease_expires_at, row.not_before) == (None, None, None)
        assert validation_id in validation_leases.waiting(session)
        again = validation_leases.claim(session, "control-b", 30, validation_id)
        assert again is not None
        assert (again.fence, again.tries) == (2, 1)


def test_an_admission_is_handed_back(context: Context, silent_hub: None) -> None:
    project = make_project(context.engine)
    job_id = make_job(context.engine, project, queued=False, model="lab/tiny")
    validated(context.engine, job_id)
    work = threading.Thread(target=admit, args=(context, job_id))
    work.start()
    until(lambda: read_job(context.engine, job_id).failures_without_progress)
    ends_soon(context, work)
    job = read_job(context.engine, job_id)
    assert job.status == Status.VALIDATING
    assert (job.failures, job.failures_without_progress) == (0, 0)
    assert (job.worker_id, job.lease_expires_at, job.not_before) == (None, None, None)
    with transaction(context.engine) as session:
        assert leases.claim_admission(session, "control-b", 30, job_id) is not None
