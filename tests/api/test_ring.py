"""Rings after the commit: heard when the broker is well, never waited for when it is not."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from core.doorbell import CONTROL_QUEUE, train_queue
from server.children import spawn, stop
from server.embedded import valkey
from tests.api.conftest import Live, running, settings_for
from tests.rows import make_job, read_job

SOON = 3.0
"""Seconds in which an answer must come whatever the broker does."""


@dataclass
class Broker:
    url: str
    process: subprocess.Popen[bytes]

    def taken(self, queue: str) -> tuple[str, list[Any]] | None:
        """The next message's task and arguments, as Celery's protocol 2 has them."""
        with redis.Redis.from_url(self.url) as client:
            message = client.rpop(queue)
        if message is None:
            return None
        envelope = json.loads(message)
        arguments, _, _ = json.loads(base64.b64decode(envelope["body"]))
        return envelope["headers"]["task"], arguments


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    part = valkey(tmp_path)
    with (tmp_path / "valkey.log").open("ab") as log:
        process = spawn(part.child, log.fileno())
    while not part.is_ready():
        time.sleep(0.02)
    yield Broker(part.url, process)
    os.kill(process.pid, signal.SIGCONT)
    stop(part.child, process)


@pytest.fixture
def api(live: Live, broker: Broker) -> Iterator[Live]:
    """The module's API, but on a broker of this test's own."""
    settings = settings_for(live.settings.data_dir, str(live.settings.database_url), broker.url)
    with running(settings) as url:
        yield Live(**(vars(live) | {"url": url, "settings": settings}))


def submit(api: Live, training_file: str) -> str:
    with api.http() as http:
        body = {"model": "all-MiniLM-L6-v2", "training_file": training_file}
        answer = http.post("/fine_tuning/jobs", json=body)
    assert answer.status_code == 200
    return str(answer.json()["id"])


def validation_of(api: Live, job: str) -> str:
    return str(read_job(api.engine, job).validation_id)


def eventually(check: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def test_an_upload_rings_for_its_check_and_a_job_for_its_validation(
    api: Live, broker: Broker
) -> None:
    file_id = api.upload(b"text,label\nrung,1\nfor,2\n")
    with api.http() as http:
        check = http.get(f"/files/{file_id}").json()["validation"]
    assert eventually(lambda: broker.taken(CONTROL_QUEUE)) == ("validate", [check])
    job = submit(api, file_id)
    rung = ("validate", [validation_of(api, job)])
    assert eventually(lambda: broker.taken(CONTROL_QUEUE)) == rung


def test_a_validation_rings(api: Live, broker: Broker) -> None:
    file_id = api.upload()
    eventually(lambda: broker.taken(CONTROL_QUEUE))
    with api.http() as http:
        made = http.post("/fine_tuning/validations", json={"training_file": file_id}).json()
    assert eventually(lambda: broker.taken(CONTROL_QUEUE)) == ("validate", [made["id"]])


def test_a_replayed_submit_rings_once(api: Live, broker: Broker) -> None:
    body = {"model": "all-MiniLM-L6-v2", "training_file": api.upload()}
    eventually(lambda: broker.taken(CONTROL_QUEUE))
    with api.http() as http:
        for _ in range(2):
            http.post("/fine_tuning/jobs", json=body, headers={"Idempotency-Key": "rings"})
    assert eventually(lambda: broker.taken(CONTROL_QUEUE))
    time.sleep(0.5)
    assert broker.taken(CONTROL_QUEUE) is None


def test_a_resumed_job_rings_those_who_can_train_it(api: Live, broker: Broker) -> None:
    job = make_job(api.engine, api.project_id, requires=["cuda"])
    with api.http() as http:
        http.post(f"/fine_tuning/jobs/{job}/pause")
        assert http.post(f"/fine_tuning/jobs/{job}/resume").json()["status"] == "queued"
    assert eventually(lambda: broker.taken(train_queue(["cuda"]))) == ("train", [])


def test_a_refused_job_does_not_ring(api: Live, broker: Broker) -> None:
    with api.http() as http:
        body = {"model": "all-MiniLM-L6-v2", "training_file": "file-none"}
        assert http.post("/fine_tuning/jobs", json=body).status_code == 404
    time.sleep(0.5)
    assert broker.taken(CONTROL_QUEUE) is None


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL], ids=["frozen", "dead"])
def test_a_broker_that_does_not_answer_is_not_waited_for(
    api: Live, broker: Broker, fault: signal.Signals
) -> None:
    training_file = api.upload()
    submit(api, training_file)  # a connection to the broker is open
    os.kill(broker.process.pid, fault)
    body = {"model": "all-MiniLM-L6-v2", "training_file": training_file}
    began = time.monotonic()
    with api.http() as http:  # one connection: a call must not wait for the ring of the one before
        jobs = [http.post("/fine_tuning/jobs", json=body).json()["id"] for _ in range(5)]
    assert time.monotonic() - began < SOON
    assert [read_job(api.engine, job).status for job in jobs] == ["validating_files"] * 5
    with api.http() as http:
        ready = http.get(f"{api.url}/readyz")
    assert (ready.status_code, ready.json()["broker"]) == (200, "unreachable")
    if fault is signal.SIGSTOP:
        os.kill(broker.process.pid, signal.SIGCONT)
        validation = validation_of(api, submit(api, training_file))
        rung = eventually(lambda: broker.taken(CONTROL_QUEUE), 30)
        while rung[1] != [validation]:
            rung = eventually(lambda: broker.taken(CONTROL_QUEUE), 30)
