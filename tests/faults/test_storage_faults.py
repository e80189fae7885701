"""An object store that errs, dawdles, breaks off and lies. Row 16."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from models.checkpoints import newest_first
from models.db import transaction
from models.registry import FineTunedModel
from models.state import TERMINAL
from tests.faults.fleet import Fleet, running_fleet
from tests.faults.invariants import assert_invariants
from tests.faults.killing import LONG, assert_as_if_unbroken
from tests.faults.processes import wait_for
from tests.faults.s3_proxy import Kind, S3Proxy

BUCKET = "luthier"
GRACE_SECONDS = 16.0
SOON = 15.0
"""Seconds, on a busy machine. The store's client alone gives a request up after 30."""
KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **KEYS
    )
    client.create_bucket(Bucket=BUCKET)
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def lying_store(moto: str) -> Iterator[S3Proxy]:
    proxy = S3Proxy(moto, random.Random(1))
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def s3_fleet(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, lying_store: S3Proxy
) -> Iterator[Fleet]:
    environment = {
        "LUTHIER_STORAGE_URL": f"s3://{BUCKET}/prefix",
        "LUTHIER_S3_ENDPOINT": lying_store.url,
        "LUTHIER_S3_ACCESS_KEY_ID": KEYS["aws_access_key_id"],
        "LUTHIER_S3_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"],
    }
    with running_fleet(tmp_path_factory.mktemp("s3"), tiny_model, **environment) as running:
        yield running
        assert_invariants(running)


@pytest.fixture
def fleet(s3_fleet: Fleet, lying_store: S3Proxy) -> Iterator[Fleet]:
    s3_fleet.mend()
    yield s3_fleet
    lying_store.calm()
    s3_fleet.mend()
    s3_fleet.finish_everything()


@pytest.mark.faults
def test_errors_delays_and_broken_answers_are_retried(fleet: Fleet, lying_store: S3Proxy) -> None:
    """Row 16: a third of all answers bad; the job ends as ever."""
    fleet.unbroken_sha256(**LONG)
    file_id = fleet.upload()
    lying_store.done.clear()
    lying_store.inject("error", share=0.15)
    lying_store.inject("slow", share=0.1)
    lying_store.inject("truncated", methods=("GET",), share=0.1)
    job_id = fleet.submit(file_id, **LONG)
    fleet.wait_status(job_id, *TERMINAL, seconds=240)
    lying_store.calm()
    print(f"injected: {dict(lying_store.done)}")
    assert lying_store.done["error"]
    assert_as_if_unbroken(fleet, job_id, **LONG)


def test_wrong_bytes_are_never_trained_on(fleet: Fleet, lying_store: S3Proxy) -> None:
    """Row 16: while the data set does not match its hash nothing is trained; the job waits."""
    fleet.worker()
    lying_store.inject("wrong bytes", methods=("GET",), path="/datasets/")
    # Other bytes than any worker has in its cache.
    job_id = fleet.submit(fleet.upload(rows=52), max_steps=20)
    ended = wait_for("an attempt ends", lambda: fleet.ended_attempts(job_id) or None)
    assert ended[0]["outcome"] == "storage_object_corrupt"
    assert fleet.steps_seen(job_id) == []
    lying_store.calm()
    job = fleet.wait_status(job_id, *TERMINAL, seconds=180)
    assert job["status"] == "succeeded", job["error"]


@pytest.mark.faults
def test_a_long_outage_is_waited_out(fleet: Fleet, lying_store: S3Proxy) -> None:
    """Row 16: more failures in a row than would make a crashing job poison."""
    fleet.worker()
    lying_store.inject("wrong bytes", methods=("GET",), path="/datasets/")
    job_id = fleet.submit(fleet.upload(rows=48), max_steps=20)
    wait_for("four attempts end", lambda: fleet.ended_attempts(job_id)[3:] or None, 120)
    lying_store.calm()
    job = fleet.wait_status(job_id, *TERMINAL, seconds=180)
    assert job["status"] == "succeeded", job["error"]


def test_no_success_before_the_artifacts_verify(fleet: Fleet, lying_store: S3Proxy) -> None:
    """Row 16: what arrives wrong in the store is found by reading it back, and sent again."""
    fleet.worker()
    lying_store.inject("wrong upload", methods=("PUT",), path="/output/model.safetensors", times=2)
    lying_store.done.clear()
    job_id = fleet.submit(fleet.upload(), max_steps=20)
    job = fleet.wait_status(job_id, *TERMINAL)
    assert lying_store.done["wrong upload"] == 2
    assert job["status"] == "succeeded", job["error"]
    with transaction(fleet.engine) as session:
        model = session.get(FineTunedModel, job["fine_tuned_model"])
        assert model is not None
    for file in model.files:
        fleet.store.verify(f"{model.prefix}/{file['path']}", sha256=file["sha256"])


@pytest.mark.parametrize("fault", ["hang", pytest.param("error", marks=pytest.mark.faults)])
def test_a_cancel_waits_for_no_store_that_is_away(
    fleet: Fleet, lying_store: S3Proxy, fault: Kind
) -> None:
    """Row 16: the slot is free within seconds, and it is told what was lost."""
    worker = fleet.worker()
    file_id = fleet.upload()
    job_id = fleet.submit(file_id, max_steps=5000, checkpoint_every=30)
    meet(fleet, lying_store, job_id, fault)
    began = time.monotonic()
    assert fleet.ask(job_id, "cancel", mode="now").is_success
    job = fleet.wait_status(job_id, *TERMINAL)
    assert time.monotonic() - began < SOON
    assert job["status"] == "cancelled"
    assert lost(fleet, job_id)
    assert job["result_files"], "these the store would have taken"
    following = fleet.submit(file_id, max_steps=5)
    fleet.wait_status(following, "running", *TERMINAL, seconds=SOON)
    lying_store.calm()
    assert fleet.wait_status(following, *TERMINAL)["status"] == "succeeded"
    assert worker.alive


@pytest.mark.faults
@pytest.mark.parametrize(
    ("methods", "path", "mode", "rows"),
    [(("PUT", "POST"), "/output/", "now", 44), (("GET",), "/datasets/", "save", 46)],
    ids=["the finished model", "the data set"],
)
def test_nor_for_what_hangs_before_and_after_training(
    fleet: Fleet, lying_store: S3Proxy, methods: tuple[str, ...], path: str, mode: str, rows: int
) -> None:
    worker = fleet.worker()
    lying_store.done.clear()
    lying_store.inject("hang", methods=methods, path=path)
    # Other bytes than any worker has in its cache.
    job_id = fleet.submit(fleet.upload(rows=rows), max_steps=5)
    wait_for("it hangs", lambda: lying_store.done["hang"] or None)
    began = time.monotonic()
    assert fleet.ask(job_id, "cancel", mode=mode).is_success
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "cancelled"
    assert time.monotonic() - began < SOON
    assert worker.alive


@pytest.mark.faults
def test_a_pause_waits_for_a_store_that_is_away_as_long_as_is_set(
    fleet: Fleet, lying_store: S3Proxy
) -> None:
    """Row 16: then it goes on from the checkpoint before."""
    fleet.unbroken_sha256(**LONG)
    for other in fleet.alive("worker"):
        fleet.end(other)
    fleet.start_worker(LUTHIER_STOP_UPLOAD_SECONDS="4")
    job_id = fleet.submit(fleet.upload(), **LONG)
    meet(fleet, lying_store, job_id, "hang")
    began = time.monotonic()
    assert fleet.ask(job_id, "pause").is_success
    fleet.wait_status(job_id, "paused")
    assert 4 < time.monotonic() - began < SOON
    step = fleet.newest_checkpoint(job_id)
    assert min(lost(fleet, job_id)) > step
    lying_store.calm()
    assert fleet.ask(job_id, "resume").is_success
    fleet.wait_status(job_id, *TERMINAL)
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert fleet.attempts(job_id)[-1]["resumed_from_step"] == step


@pytest.mark.faults
def test_a_deploy_keeps_to_its_grace_though_the_store_hangs(
    fleet: Fleet, lying_store: S3Proxy
) -> None:
    """Rows 11 and 16."""
    fleet.unbroken_sha256(**LONG)
    for other in fleet.alive("worker"):
        fleet.end(other)
    leaving = fleet.start_worker(LUTHIER_GRACE_SECONDS=str(GRACE_SECONDS))
    job_id = fleet.submit(fleet.upload(), **LONG)
    meet(fleet, lying_store, job_id, "hang")
    assert fleet.end(leaving, GRACE_SECONDS) == 0
    assert fleet.job(job_id)["status"] == "queued"
    assert fleet.attempts(job_id)[0]["outcome"] == "returned"
    assert min(lost(fleet, job_id)) > fleet.newest_checkpoint(job_id)
    lying_store.calm()
    fleet.worker()
    fleet.wait_status(job_id, *TERMINAL)
    assert_as_if_unbroken(fleet, job_id, **LONG)


def meet(fleet: Fleet, store: S3Proxy, job_id: str, fault: Kind) -> None:
    """Wait until checkpoints of the job are uploaded in vain, after one that was stored."""
    wait_for("a checkpoint", lambda: fleet.newest_checkpoint(job_id) or None)
    store.done.clear()
    store.inject(fault, methods=("PUT", "POST"), path="/checkpoints/")
    wait_for("an upload meets it", lambda: store.done[fault] or None)


def lost(fleet: Fleet, job_id: str) -> list[int]:
    """The steps whose checkpoints are told as lost."""
    told = [event for event in fleet.events(job_id) if "is lost: the object" in event["message"]]
    return [event["data"]["step"] for event in told]


@pytest.mark.faults
def test_one_bad_read_does_not_cost_a_checkpoint(fleet: Fleet, lying_store: S3Proxy) -> None:
    """Row 16: bytes that went wrong on the way are fetched again; the checkpoint is kept."""
    job_id = _paused(fleet)
    step = fleet.newest_checkpoint(job_id)
    lying_store.done.clear()
    lying_store.inject("wrong bytes", methods=("GET",), path="/checkpoints/.*safetensors", times=1)
    assert fleet.ask(job_id, "resume").is_success
    fleet.wait_status(job_id, *TERMINAL)
    assert lying_store.done["wrong bytes"] == 1
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert fleet.attempts(job_id)[-1]["resumed_from_step"] == step


@pytest.mark.faults
def test_a_checkpoint_that_stays_wrong_gives_way_to_an_older_one(fleet: Fleet) -> None:
    """Row 16: damaged at rest, the newest checkpoint is discarded, with an event that says so."""
    job_id = _paused(fleet)
    with transaction(fleet.engine) as session:
        newest, older = newest_first(session, job_id)[:2]
    fleet.store.write_bytes(f"{newest.prefix}/model.safetensors", b"damaged")
    assert fleet.ask(job_id, "resume").is_success
    fleet.wait_status(job_id, *TERMINAL)
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert fleet.attempts(job_id)[-1]["resumed_from_step"] == older.step
    assert any("did not verify" in event["message"] for event in fleet.events(job_id))


def _paused(fleet: Fleet) -> str:
    """A job that has published some checkpoints and rests."""
    fleet.unbroken_sha256(**LONG)
    fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    wait_for("some checkpoints", lambda: fleet.newest_checkpoint(job_id) >= 60 or None)
    assert fleet.ask(job_id, "pause").is_success
    fleet.wait_status(job_id, "paused")
    return job_id
