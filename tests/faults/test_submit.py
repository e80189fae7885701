"""Submitting and uploading while something breaks. Rows 1, 2, 3, 17 and 20."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from core.doorbell import Doorbell
from models.db import transaction
from models.files import File
from models.jobs import Job
from server.embedded import free_port
from tests.faults.fleet import Fleet, training_csv
from tests.faults.processes import wait_for

ANSWER_SECONDS = 3.0
"""Within which a submit answers, whatever the broker does."""


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.faults)])
def test_an_answered_submit_exists_and_an_unanswered_one_may_be_repeated(
    fleet: Fleet, rng: random.Random, kills: int
) -> None:
    """Row 1: kill -9 of the API at any point of a POST."""
    file_id = fleet.upload()
    for _ in range(3):  # The last of them is warm.
        began = time.monotonic()
        fleet.submit(file_id, max_steps=1, metadata={"tag": "unkilled"})
        usual = time.monotonic() - began
    answered = 0
    for number in range(kills):
        answered += _submit_and_kill(fleet, file_id, rng.uniform(0, 1.2 * usual), f"kill {number}")
    print(f"{kills} kills, {answered} submits were answered all the same")


@pytest.mark.parametrize("deferred", [False, True])
def test_a_submit_whose_transaction_is_cut_off_may_be_repeated(
    fleet: Fleet, deferred: bool
) -> None:
    """Row 1: kill -9 of the API while the job is being written, and while that is committed."""
    file_id = fleet.upload()
    with fleet.slow_writes("jobs", "INSERT", seconds=1.5, deferred=deferred):
        answered = _submit_and_kill(fleet, file_id, 0.7, "in the transaction")
    assert not answered


def _submit_and_kill(fleet: Fleet, file_id: str, after: float, when: str) -> bool:
    """Submit, kill the API so many seconds later, repeat; whether the first call was answered."""
    tag = uuid.uuid4().hex
    body = fleet.request(file_id, max_steps=1, metadata={"tag": tag})
    (api,) = fleet.alive("api")
    killing = threading.Timer(after, api.kill)
    killing.start()
    first = None
    with suppress(httpx.TransportError):
        answer = _submit(fleet, body, key=tag)
        assert answer.status_code == httpx.codes.OK, answer.text
        first = answer.json()["id"]
    killing.join()
    fleet.start_api()
    made = _jobs_tagged(fleet, tag)
    if first is not None:
        assert made == [first], f"{when}: an answered job is gone"
    again = _submit(fleet, body, key=tag)
    assert again.status_code == httpx.codes.OK, again.text
    assert _jobs_tagged(fleet, tag) == [again.json()["id"]], when
    assert not made or made == [again.json()["id"]], when
    return first is not None


def test_fifty_equal_submits_at_once_make_one_job(fleet: Fleet) -> None:
    """Row 2, with an Idempotency-Key; the same again in a row; another payload is refused."""
    key = uuid.uuid4().hex
    body = fleet.request(fleet.upload(), max_steps=1, metadata={"tag": key})
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: _submit(fleet, body, key=key), range(50)))
    answers += [_submit(fleet, body, key=key) for _ in range(50)]
    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(_jobs_tagged(fleet, key)) == 1
    other = _submit(fleet, body | {"seed": 2}, key=key)
    assert other.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert other.json()["error"]["code"] == "idempotency_key_reused"


def test_the_openai_clients_own_retries_make_one_job(fleet: Fleet) -> None:
    """Row 2, without a key: the package repeats a POST with `x-stainless-retry-count`."""
    tag = uuid.uuid4().hex
    body = fleet.request(fleet.upload(), max_steps=1, metadata={"tag": tag})
    first = _submit(fleet, body, retry=0)
    with ThreadPoolExecutor(50) as pool:
        again = list(pool.map(lambda n: _submit(fleet, body, retry=1 + n % 2), range(50)))
    assert {answer.json()["id"] for answer in [first, *again]} == {first.json()["id"]}
    assert _jobs_tagged(fleet, tag) == [first.json()["id"]]
    fresh = _submit(fleet, body, retry=0)
    assert fresh.json()["id"] != first.json()["id"], "a second call of the user's own is a new job"


def _stop(fleet: Fleet) -> None:
    fleet.valkey.stop()


def _freeze(fleet: Fleet) -> None:
    fleet.valkey.signal(signal.SIGSTOP)


def _flush(fleet: Fleet) -> None:
    fleet.flush_broker()


@pytest.mark.parametrize("harm", [_stop, _freeze, _flush])
def test_a_submit_does_not_wait_for_the_broker(fleet: Fleet, harm: Callable[[Fleet], None]) -> None:
    """Row 3: Redis stopped, frozen or flushed at submission; the job runs once it is back."""
    fleet.worker()
    file_id = fleet.upload()
    harm(fleet)
    began = time.monotonic()
    job_id = fleet.submit(file_id, max_steps=1)
    took = time.monotonic() - began
    assert took < ANSWER_SECONDS, f"the submit took {took:.1f} s"
    fleet.valkey.mend()
    assert fleet.wait_status(job_id, "succeeded", "failed")["status"] == "succeeded"


def test_an_upload_that_is_cut_off_leaves_no_file(fleet: Fleet) -> None:
    """Row 17: truncated and aborted uploads, and an API that is killed in the middle of one.

    That no bytes are left either is checked after each test.
    """
    before = _files(fleet)
    for cut in (_hang_up_early, _announce_more):
        cut(fleet)
        fleet.get("/files")  # It is there, and well.
        assert _files(fleet) == before
    _upload_until_killed(fleet)
    fleet.start_api()
    assert _files(fleet) == before
    assert fleet.upload() not in before


def test_an_upload_beyond_the_limit_leaves_no_file(fleet: Fleet) -> None:
    """Row 17: oversized, by its announced length and by what really comes."""
    port = free_port()
    small = fleet.start("api", LUTHIER_PORT=str(port), LUTHIER_MAX_UPLOAD_BYTES="100000")
    url = f"http://127.0.0.1:{port}"
    fleet.wait_api(url)
    before = _files(fleet)
    headers = {"Authorization": f"Bearer {fleet.key}"}
    form: dict[str, Any] = {
        "data": {"purpose": "fine-tune"},
        "files": {"file": ("a", b"x" * 10**6)},
    }
    answer = httpx.post(f"{url}/v1/files", headers=headers, **form)
    assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    boundary = {"Content-Type": "multipart/form-data; boundary=cut"}
    chunked = httpx.post(f"{url}/v1/files", headers=headers | boundary, content=_endless(10**6))
    assert chunked.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert _files(fleet) == before
    fleet.end(small)


@pytest.mark.faults
def test_lost_late_and_doubled_rings_do_nothing_beyond_a_delay(fleet: Fleet) -> None:
    """Row 20."""
    fleet.worker()
    bell = Doorbell(fleet.settings)
    job_id = fleet.submit(fleet.upload(), max_steps=100)
    fleet.flush_broker()
    for _ in range(50):
        bell.validate(job_id)
        bell.train([])
    assert fleet.wait_status(job_id, "succeeded", "failed")["status"] == "succeeded"
    for _ in range(50):  # Late ones.
        bell.validate(job_id)
        bell.train([])
    after = fleet.submit(fleet.upload(), max_steps=1)
    assert fleet.wait_status(after, "succeeded", "failed")["status"] == "succeeded"
    assert [len(fleet.attempts(one)) for one in (job_id, after)] == [1, 1]
    bell.close()


def _submit(
    fleet: Fleet, body: dict[str, Any], *, key: str | None = None, retry: int | None = None
) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    if retry is not None:
        headers["x-stainless-retry-count"] = str(retry)
    return fleet.http.post("/fine_tuning/jobs", json=body, headers=headers)


def _jobs_tagged(fleet: Fleet, tag: str) -> list[str]:
    with transaction(fleet.engine) as session:
        return list(session.scalars(select(Job.id).where(Job.labels.contains({"tag": tag}))))


def _files(fleet: Fleet) -> set[str]:
    with transaction(fleet.engine) as session:
        return set(session.scalars(select(File.id)))


def _form(data: bytes) -> bytes:
    return (
        b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    ) + data


def _endless(size: int) -> Any:
    yield _form(b"")
    for _ in range(size // 1000):
        yield b"x" * 1000


def _connection(fleet: Fleet, length: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", fleet.port))
    connection.sendall(
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=cut\r\n"
        + f"Authorization: Bearer {fleet.key}\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return connection


def _hang_up_early(fleet: Fleet) -> None:
    """Less than announced, then gone: a client that was killed."""
    with _connection(fleet, 20_000_000) as connection:
        connection.sendall(_form(training_csv(100_000)))
        wait_for("bytes arrive in storage", lambda: fleet.staged() or None)


def _announce_more(fleet: Fleet) -> None:
    """A form without its end, in a request that is complete: cut by something in between."""
    body = _form(training_csv(1000))
    with _connection(fleet, len(body)) as connection:
        connection.sendall(body)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]


def _upload_until_killed(fleet: Fleet) -> None:
    (api,) = fleet.alive("api")
    with _connection(fleet, 10**9) as connection:
        connection.sendall(_form(b""))
        while not fleet.staged():
            connection.sendall(os.urandom(10**6))
        api.kill()
        with suppress(OSError):
            connection.sendall(b"x")
