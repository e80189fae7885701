"""What a trainer may take: time, files, and nothing of its supervisor's."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG
from tests.faults.processes import wait_for

SECRETS = ("LUTHIER_", "DATABASE_URL", "REDIS_URL", "AWS_")


@pytest.mark.faults
def test_a_job_ends_when_its_time_is_up(fleet: Fleet) -> None:
    """All attempts together; what was trained is saved, and the error says how to go on."""
    for worker in fleet.alive("worker"):
        fleet.end(worker)
    short = fleet.start_worker(LUTHIER_MAX_JOB_SECONDS="2")
    job_id = fleet.submit(fleet.upload(), max_steps=100_000, checkpoint_every=100_000)
    job = fleet.wait_status(job_id, *TERMINAL)
    assert job["status"] == "failed"
    assert job["error"]["code"] == "time_limit"
    assert "from_checkpoint" in job["error"]["message"]
    assert fleet.newest_checkpoint(job_id) > 0
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["failed"]
    fleet.end(short)


def test_a_trainer_has_a_group_of_its_own_limits_and_no_secrets(fleet: Fleet) -> None:
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 1)
    trainer = worker.busy_trainer()
    assert trainer is not None
    assert os.getpgid(trainer.pid) == trainer.pid != os.getpgid(worker.pid)
    assert trainer.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    soft, hard = trainer.rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard <= 65_536
    leaked = [name for name in trainer.environ() if name.startswith(SECRETS)]
    assert leaked == ["LUTHIER_RECORD_FD"]
    assert not trainer.net_connections(), "it talks to the network"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.faults)]
)
def test_a_signal_for_the_whole_service_does_not_end_the_trainer(
    fleet: Fleet, number: signal.Signals
) -> None:
    """Its supervisor still wants a checkpoint from it."""
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 1)
    trainer = worker.busy_trainer()
    assert trainer is not None
    trainer.send_signal(number)
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
    assert len(fleet.attempts(job_id)) == 1


def test_the_last_words_of_a_killed_trainer_are_on_the_job(fleet: Fleet) -> None:
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 1)
    trainer = worker.busy_trainer()
    assert trainer is not None
    trainer.kill()
    ended = wait_for("the attempt ends", lambda: fleet.ended_attempts(job_id) or None)
    assert ended[0]["outcome"] == "trainer_crashed"
    assert "signal 9" in ended[0]["reason"]
    assert fleet.http.get(f"/fine_tuning/jobs/{job_id}/logs").is_success
