"""What a user deletes goes, with its bytes, as soon as nothing needs it."""

from __future__ import annotations

from models import checkpoints
from models.db import transaction
from tests.api import control
from tests.api.conftest import Live
from tests.api.rows import make_model
from worker.reconcilers import clean


def test_a_checkpoints_bytes_go_with_its_model_once_its_job_is_over(live: Live) -> None:
    model = make_model(live, suffix="unwanted", step=20)
    other = make_model(live, suffix="wanted", step=30)
    context = control.context_of(live)
    with live.http() as http:
        listed = f"/fine_tuning/jobs/{model.job_id}/checkpoints"
        assert len(http.get(listed).json()["data"]) == 1
        assert http.delete(f"/models/{model.id}").is_success
        assert http.get(listed).json()["data"] == []
        clean.reconcile(context)
        assert list(live.store.keys(model.prefix)), "its job may yet go on from it"
        for job_id in (model.job_id, other.job_id):
            assert http.post(f"/fine_tuning/jobs/{job_id}/cancel").is_success
    clean.reconcile(context)
    assert not list(live.store.keys(model.prefix))
    assert list(live.store.keys(other.prefix))


def test_a_job_under_way_on_a_base_model_keeps_nothing_of_others(live: Live) -> None:
    model, discarded = make_model(live, suffix="gone"), make_model(live, suffix="old", step=10)
    with live.http() as http:
        body = {"model": "all-MiniLM-L6-v2", "training_file": live.upload()}
        assert http.post("/fine_tuning/jobs", json=body).json()["status"] == "validating_files"
        assert http.delete(f"/models/{model.id}").is_success
    with transaction(live.engine) as session:
        (checkpoint,) = checkpoints.newest_first(session, discarded.job_id)
        checkpoints.discard(session, checkpoint.id)
    clean.reconcile(control.context_of(live))
    for gone in (model, discarded):
        assert not list(live.store.keys(gone.prefix))
