"""Checkpoints kept and dropped, started from, and what is left of attempts that were lost."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import func, update

from models import keys, orphans, removal
from models.checkpoints import Checkpoint
from models.db import transaction
from models.state import TERMINAL
from models.validations import Validation
from tests.faults.fleet import Fleet, training_csv
from worker.context import Context
from worker.reconcilers import clean
from worker.reconcilers import orphans as orphan_cleaning


@pytest.fixture(scope="module")
def trained_once() -> dict[str, Any]:
    """Filled by the first test that asks for `trained`."""
    return {}


@pytest.fixture
def trained(fleet: Fleet, trained_once: dict[str, Any]) -> dict[str, Any]:
    """A job that has succeeded, with its checkpoints. Its model is not to be deleted."""
    if not trained_once:
        trained_once |= _train(fleet)
    return trained_once


def _train(fleet: Fleet) -> dict[str, Any]:
    fleet.worker()
    job_id = fleet.submit(fleet.upload(), max_steps=60, checkpoint_every=10, suffix="first")
    job = fleet.wait_status(job_id, *TERMINAL)
    assert job["status"] == "succeeded", job["error"]
    return job


def test_the_last_checkpoints_the_best_and_every_k_th_are_kept(fleet: Fleet) -> None:
    for worker in fleet.alive("worker"):
        fleet.end(worker)
    keeping = fleet.start_worker(
        LUTHIER_CHECKPOINT_KEEP_LAST="2", LUTHIER_CHECKPOINT_KEEP_EVERY="40"
    )
    file_id = fleet.upload()
    job_id = fleet.submit(file_id, max_steps=100, checkpoint_every=10, validation_file=file_id)
    job = fleet.wait_status(job_id, *TERMINAL)
    assert job["status"] == "succeeded", job["error"]
    shown = fleet.get(f"/fine_tuning/jobs/{job_id}/checkpoints", limit=100)["data"]
    steps = {checkpoint["step_number"] for checkpoint in shown}
    published = _published(fleet, job_id)
    best = max(c for c in published if published[c])
    due = set(sorted(published)[-2:]) | {c for c in published if c % 40 == 0} | {best}
    assert steps == due
    assert len(published) > len(due)
    _clean(fleet)
    left = {
        int(key.split("/step-")[1].split("/")[0])
        for key in fleet.store.keys(f"jobs/{job_id}")
        if "/step-" in key
    }
    assert left == due
    fleet.end(keeping)


def test_a_checkpoint_is_a_plain_model_folder(fleet: Fleet, trained: dict[str, Any]) -> None:
    (newest, *_) = fleet.get(f"/fine_tuning/jobs/{trained['id']}/checkpoints", limit=1)["data"]
    files = fleet.get(f"/models/{newest['fine_tuned_model_checkpoint']}/files")["data"]
    paths = {file["path"] for file in files}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= paths
    assert not [path for path in paths if "/" in path or path.endswith((".pt", "manifest.json"))]


@pytest.mark.faults
def test_a_job_starts_from_a_checkpoint_or_a_model(fleet: Fleet, trained: dict[str, Any]) -> None:
    """With equal weights at the start and equal data, what follows is equal too."""
    fleet.worker()
    (newest, *_) = fleet.get(f"/fine_tuning/jobs/{trained['id']}/checkpoints", limit=1)["data"]
    model = trained["fine_tuned_model"]
    asked = {"max_steps": 10, "suffix": "second"}
    file_id = fleet.upload()
    jobs = [
        fleet.submit(file_id, from_checkpoint=newest["id"], **asked),
        fleet.submit(file_id, from_checkpoint=newest["fine_tuned_model_checkpoint"], **asked),
        fleet.submit(file_id, from_checkpoint=model, **asked),
        fleet.submit(file_id, model=model, **asked),
    ]
    ended = [fleet.wait_status(job_id, *TERMINAL) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * len(jobs), ended
    assert len({fleet.weights_sha256(job_id) for job_id in jobs}) == 1
    assert fleet.weights_sha256(jobs[0]) != fleet.unbroken_sha256(max_steps=10)
    assert ended[0]["resolved"]["from_checkpoint"] == newest["id"]
    assert {job["resolved"]["model"] for job in ended} == {"tiny"}
    assert ended[3]["model"] == model
    assert ended[3]["fine_tuned_model"].startswith("ft:tiny:default:second:")
    # Its loss begins where the other's ended, below that of a fresh start.
    grandchild = fleet.submit(file_id, model=ended[3]["fine_tuned_model"], max_steps=1)
    assert fleet.wait_status(grandchild, *TERMINAL)["status"] == "succeeded"


@pytest.mark.faults
def test_what_a_waiting_job_starts_from_is_not_cleaned_away(fleet: Fleet) -> None:
    trained = _train(fleet)
    for worker in fleet.alive("worker"):
        fleet.end(worker)
    job_id = fleet.submit(fleet.upload(), model=trained["fine_tuned_model"], max_steps=1)
    fleet.wait_status(job_id, "queued")
    assert fleet.http.delete(f"/models/{trained['fine_tuned_model']}").is_success
    _clean(fleet)
    assert any("/output/" in key for key in fleet.store.keys(f"jobs/{trained['id']}"))
    fleet.worker()
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
    _clean(fleet)
    assert not any("/output/" in key for key in fleet.store.keys(f"jobs/{trained['id']}"))


def test_another_projects_checkpoint_is_not_there(fleet: Fleet, trained: dict[str, Any]) -> None:
    (newest, *_) = fleet.get(f"/fine_tuning/jobs/{trained['id']}/checkpoints", limit=1)["data"]
    with transaction(fleet.engine) as session:
        secret = fleet.settings.signing_secret()
        _, key = keys.create(session, secret, project="stranger", name="stranger")
    with httpx.Client(
        base_url=f"{fleet.url}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30
    ) as stranger:
        form = {"purpose": "fine-tune"}
        upload = stranger.post("/files", data=form, files={"file": ("a.csv", training_csv(8))})
        request = fleet.request(upload.json()["id"], max_steps=1)
        for asked in (
            {"from_checkpoint": newest["id"]},
            {"from_checkpoint": newest["fine_tuned_model_checkpoint"]},
            {"from_checkpoint": trained["fine_tuned_model"]},
            {"model": trained["fine_tuned_model"]},
            {"from_checkpoint": "ftckpt-nothing"},
        ):
            answer = stranger.post("/fine_tuning/jobs", json=request | asked)
            assert answer.status_code == httpx.codes.NOT_FOUND, (asked, answer.text)
            assert answer.json()["error"]["param"] == next(iter(asked))


def test_other_labels_than_the_checkpoints_are_refused(
    fleet: Fleet, trained: dict[str, Any]
) -> None:
    data = training_csv(8).replace(b",neg", b",dreadful")
    form = {"purpose": "fine-tune"}
    upload = fleet.http.post("/files", data=form, files={"file": ("other.csv", data)})
    job_id = fleet.submit(upload.json()["id"], model=trained["fine_tuned_model"], max_steps=1)
    job = fleet.wait_status(job_id, *TERMINAL)
    assert job["status"] == "failed"
    assert job["error"]["code"] == "labels_mismatch"
    assert "dreadful" in job["error"]["message"]
    assert "neg" in job["error"]["message"]


@pytest.mark.parametrize("asked", [{"model": "all-MiniLM-L6-v2"}, {"task": "summarization"}])
def test_a_start_that_does_not_go_with_the_rest_is_refused(
    fleet: Fleet, trained: dict[str, Any], asked: dict[str, Any]
) -> None:
    start = {"from_checkpoint": trained["fine_tuned_model"]}
    request = fleet.request(fleet.upload(), max_steps=1)
    answer = fleet.http.post("/fine_tuning/jobs", json=request | start | asked)
    assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
    assert answer.json()["error"]["code"] == "origin_mismatch"
    assert answer.json()["error"]["param"] == next(iter(asked))


def test_what_nothing_refers_to_goes_once_it_is_old(fleet: Fleet, trained: dict[str, Any]) -> None:
    """Bytes of lost attempts, cut-off uploads, data sets of ended jobs; and nothing else."""
    strays = [
        f"jobs/{trained['id']}/attempts/99/checkpoints/step-10/model.safetensors",
        f"files/{fleet.project}/file-never",
        f"datasets/{fleet.project}/{'0' * 64}.arrow",
        f"uploads/{fleet.project}/upload_never/part_never",
    ]
    for key in strays:
        fleet.store.write_bytes(key, b"left")
    context = Context.open(fleet.settings)
    orphan_cleaning.reconcile(context)
    kept = _all_keys(fleet)
    assert set(strays) <= kept, "they may belong to a write under way"
    context.engine.dispose()
    context = Context.open(fleet.settings.model_copy(update={"orphan_seconds": -1.0}))
    orphan_cleaning.reconcile(context)
    gone = kept - _all_keys(fleet)
    assert set(strays) <= gone
    of_ended_jobs = {key for key in gone if key.startswith("datasets/")}
    assert gone == {*strays, *of_ended_jobs}
    context.engine.dispose()


def test_a_data_set_of_ended_jobs_is_written_anew_for_the_next(
    fleet: Fleet, trained: dict[str, Any]
) -> None:
    context = Context.open(fleet.settings.model_copy(update={"orphan_seconds": -1.0}))
    with transaction(fleet.engine) as session:
        session.execute(update(Validation).values(data_until=func.now()))
    orphan_cleaning.reconcile(context)
    context.engine.dispose()
    assert not list(fleet.store.keys("datasets"))
    fleet.worker()
    job_id = fleet.submit(trained["training_file"], max_steps=1)
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"


def _clean(fleet: Fleet) -> None:
    context = Context.open(fleet.settings)
    while True:
        with transaction(fleet.engine) as session:
            due = removal.due(session) or removal.files_due(session)
        if not due:
            break
        clean.reconcile(context)
    context.engine.dispose()


def _published(fleet: Fleet, job_id: str) -> dict[int, bool]:
    """Every step that was ever published, and whether it was the best then."""
    with transaction(fleet.engine) as session:
        rows = session.query(Checkpoint).filter_by(job_id=job_id)
        return {row.step: row.best for row in rows}


def _all_keys(fleet: Fleet) -> set[str]:
    return {key for prefix in orphans.PREFIXES for key in fleet.store.keys(prefix)}
