"""A hub that is slow: its models are fetched for as long as they are wanted. Rows 11 and 14."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from models.db import transaction
from models.jobs import Job
from models.state import TERMINAL
from tests.api.hub import Hub, running_hub
from tests.faults.fleet import Fleet

NAME = "lab/tiny"
WEIGHTS = "model.safetensors"
SOON = 15.0
"""Seconds, on a busy machine. The download would take minutes."""


@pytest.mark.faults
def test_a_deploy_and_a_cancel_end_a_download(fleet: Fleet, tiny_model: Path) -> None:
    for other in fleet.alive("worker"):
        fleet.end(other)
    with running_hub() as hub:
        hub.models[NAME] = {
            path.name: path.read_bytes() for path in tiny_model.iterdir() if path.is_file()
        }
        hub.slow = WEIGHTS
        file_id = fleet.upload()
        job_id, following = submit(fleet, hub, file_id), submit(fleet, hub, file_id)
        leaving = fleet.start_worker(HF_ENDPOINT=hub.url)
        assert hub.dripping.wait(60)
        began = time.monotonic()
        assert fleet.end(leaving) == 0
        assert time.monotonic() - began < SOON
        assert hub.left.wait(SOON)
        assert fleet.job(job_id)["status"] == "queued"
        assert [a["outcome"] for a in fleet.attempts(job_id)] == ["returned"]
        hub.dripping.clear()
        staying = fleet.start_worker(HF_ENDPOINT=hub.url)
        assert hub.dripping.wait(60)
        hub.slow = ""  # for the next one
        began = time.monotonic()
        assert fleet.ask(job_id, "cancel", mode="now").is_success
        assert fleet.wait_status(job_id, *TERMINAL)["status"] == "cancelled"
        assert time.monotonic() - began < SOON
        job = fleet.wait_status(following, *TERMINAL)
        assert job["status"] == "succeeded", job["error"]
        assert staying.alive
        fleet.end(staying)


def submit(fleet: Fleet, hub: Hub, file_id: str) -> str:
    """A job whose model is the hub's, as if it had been looked up there when it was queued."""
    job_id = fleet.submit(file_id, max_steps=5)
    fleet.wait_status(job_id, "queued")
    with transaction(fleet.engine) as session:
        job = session.get_one(Job, job_id)
        assert job.resolved is not None
        job.resolved = job.resolved | {"model": NAME, "model_revision": hub.revision[NAME]}
    return job_id
