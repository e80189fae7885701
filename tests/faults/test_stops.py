"""Deploys, cancels, pauses and resumes, each against what goes on at that moment. Rows 11 to 14."""

from __future__ import annotations

import random
import signal
import threading
import time

import httpx
import pytest

from core.doorbell import Doorbell
from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG, Killer, assert_as_if_unbroken
from tests.faults.processes import wait_for

GRACE_SECONDS = 120.0


def test_a_deploy_saves_hands_back_and_goes_on_elsewhere(fleet: Fleet, rng: random.Random) -> None:
    """Row 11: SIGTERM ends the step, saves, gives the lease back and exits within the grace."""
    fleet.unbroken_sha256(**LONG)
    leaving = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    assert Killer(fleet, job_id, leaving, rng).wait_training(rng.randrange(200))
    step = fleet.step(job_id)
    assert fleet.end(leaving, GRACE_SECONDS) == 0
    job = fleet.job(job_id)
    assert job["status"] == "queued"
    assert fleet.newest_checkpoint(job_id) >= step, "the step under way was not saved"
    fleet.worker()
    fleet.wait_status(job_id, *TERMINAL)
    assert_as_if_unbroken(fleet, job_id, **LONG)
    tried = fleet.attempts(job_id)
    assert [a["outcome"] for a in tried] == ["returned", "succeeded"]
    assert tried[1]["resumed_from_step"] >= step


@pytest.mark.faults
def test_a_deploy_during_a_claims_commit_leaves_nothing_running(fleet: Fleet) -> None:
    """Row 11: the signal comes while the claim is being committed."""
    fleet.unbroken_sha256(**LONG)
    leaving = fleet.worker()
    with fleet.slow_writes("job_attempts", "INSERT", seconds=2, deferred=True):
        job_id = fleet.submit(fleet.upload(), **LONG)
        wait_for("the claim is being committed", lambda: fleet.sleeping_backends() or None)
        leaving.signal(signal.SIGTERM)
        assert leaving.popen.wait(GRACE_SECONDS) == 0
    assert fleet.job(job_id)["status"] == "queued"
    fleet.worker()
    fleet.wait_status(job_id, *TERMINAL)
    assert_as_if_unbroken(fleet, job_id, **LONG)


def test_a_stop_asked_for_while_a_checkpoint_is_uploaded_keeps_it(fleet: Fleet) -> None:
    """Row 11: a deploy right after a cancel's or pause's save has nothing left to do."""
    leaving = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 1)
    assert fleet.ask(job_id, "pause").is_success
    leaving.signal(signal.SIGTERM)
    assert leaving.popen.wait(GRACE_SECONDS) == 0
    assert fleet.wait_status(job_id, "paused")["status"] == "paused"
    assert fleet.newest_checkpoint(job_id) > 0


@pytest.mark.faults
def test_a_cancel_that_meets_the_end_gives_one_terminal_state(
    fleet: Fleet, rng: random.Random
) -> None:
    """Row 12: around the end, at random moments; whoever comes first has it."""
    fleet.worker()
    file_id = fleet.upload()
    seen = set()
    for _ in range(4):
        job_id = fleet.submit(file_id, max_steps=40)
        fleet.wait_step(job_id, 1 + rng.randrange(30))
        time.sleep(rng.uniform(0, 0.4))
        answer = fleet.ask(job_id, "cancel", mode=rng.choice(["now", "save"]))
        job = fleet.wait_status(job_id, *TERMINAL)
        seen.add(job["status"])
        assert job["status"] in ("cancelled", "succeeded")
        if answer.status_code == httpx.codes.CONFLICT:
            assert job["status"] == "succeeded"
        assert (job["fine_tuned_model"] is not None) == (job["status"] == "succeeded")
    print(f"ended as {seen}")


def test_a_cancel_during_the_last_commit_comes_too_late(fleet: Fleet) -> None:
    """Row 12: completion first."""
    fleet.worker()
    with fleet.slow_writes("models", "INSERT", seconds=1.5, deferred=True, when="NEW.step IS NULL"):
        job_id = fleet.submit(fleet.upload(), max_steps=5)
        wait_for("its end is being committed", lambda: fleet.sleeping_backends() or None)
        answer = fleet.ask(job_id, "cancel")
    assert answer.status_code == httpx.codes.CONFLICT
    assert answer.headers["x-should-retry"] == "false"
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"


def test_a_cancel_that_was_answered_first_wins(fleet: Fleet) -> None:
    """Row 12: cancel first, and its checkpoints stay."""
    fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 40)
    began = time.monotonic()
    assert fleet.ask(job_id, "cancel", mode="save").is_success
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "cancelled"
    print(f"cancelled within {time.monotonic() - began:.1f} s")
    assert fleet.newest_checkpoint(job_id) >= 40
    assert fleet.ask(job_id, "resume").status_code == httpx.codes.CONFLICT


@pytest.mark.parametrize("broker_frozen", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_what_was_cancelled_in_the_queue_never_starts(fleet: Fleet, broker_frozen: bool) -> None:
    """Row 13: with no worker there, or with Redis frozen."""
    for worker in fleet.alive("worker"):
        fleet.end(worker)
    file_id = fleet.upload()
    job_id, paused = fleet.submit(file_id, max_steps=1), fleet.submit(file_id, max_steps=1)
    for one in (job_id, paused):
        fleet.wait_status(one, "queued")
    if broker_frozen:
        fleet.valkey.signal(signal.SIGSTOP)
    assert fleet.ask(job_id, "cancel").json()["status"] == "cancelled"
    assert fleet.ask(paused, "pause").json()["status"] == "paused"
    if broker_frozen:
        fleet.valkey.signal(signal.SIGCONT)
    fleet.worker()
    bell = Doorbell(fleet.settings)
    bell.train([])
    bell.close()
    following = fleet.submit(file_id, max_steps=1)
    assert fleet.wait_status(following, *TERMINAL)["status"] == "succeeded"
    assert fleet.attempts(job_id) == fleet.attempts(paused) == []
    assert fleet.job(job_id)["status"] == "cancelled"
    assert fleet.job(paused)["status"] == "paused"


@pytest.mark.faults
def test_storms_of_pause_resume_and_cancel(fleet: Fleet, rng: random.Random) -> None:
    """Row 14: legal transitions only and no two attempts at a time (both checked after each test);
    the weights come out as ever."""
    fleet.unbroken_sha256(**LONG)
    fleet.worker()
    fleet.start_worker()
    file_id = fleet.upload()
    kept, dropped = fleet.submit(file_id, **LONG), fleet.submit(file_id, **LONG)
    fleet.wait_status(kept, "running")
    over = time.monotonic() + 12
    unexpected: list[httpx.Response] = []

    def storm(job_id: str, seed: int) -> None:
        mine = random.Random(seed)
        while time.monotonic() < over:
            answer = fleet.ask(job_id, mine.choice(["pause", "resume"]))
            if answer.status_code not in (httpx.codes.OK, httpx.codes.CONFLICT):
                unexpected.append(answer)
            time.sleep(mine.uniform(0, 0.3))

    storms = [
        threading.Thread(target=storm, args=(job_id, rng.randrange(2**32)))
        for job_id in (kept, kept, dropped)
    ]
    for thread in storms:
        thread.start()
    for thread in storms:
        thread.join()
    assert not unexpected, unexpected[0].text
    fleet.ask(dropped, "cancel", mode="now")
    fleet.ask(kept, "resume")
    fleet.wait_status(kept, *TERMINAL)
    assert_as_if_unbroken(fleet, kept, **LONG)
    assert fleet.wait_status(dropped, *TERMINAL)["status"] in ("cancelled", "succeeded")
    print(f"{len(fleet.attempts(kept))} attempts")
