"""Claims, fences, heartbeats and the reaper, against a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from models import attempts, checkpoints, control, events, leases, queue
from models.checkpoints import Checkpoint
from models.db import Engine, transaction
from models.jobs import Job
from models.leases import LeaseLost
from models.state import Desired, Status
from tests.rows import claim, make_job, make_project, read_job, validated


@pytest.fixture(autouse=True)
def _empty_queue(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(text("UPDATE jobs SET status = 'cancelled' WHERE status <> 'succeeded'"))


@pytest.fixture
def project(engine: Engine) -> str:
    return make_project(engine)


def test_claim_raises_the_fence_and_takes_the_lease(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    job = claim(engine)
    assert (job.id, job.status, job.fence, job.worker_id) == (job_id, "running", 1, "worker-a")
    assert job.lease_expires_at is not None
    with transaction(engine) as session:
        assert leases.claim_training(session, "worker-b", ["cpu"], 30) is None
        assert [a.worker_id for a in attempts.listing(session, job_id)] == ["worker-a"]


def test_two_hundred_rounds_of_two_claimants_give_one_holder_each(
    engine: Engine, project: str
) -> None:
    rounds = 200
    for _ in range(rounds):
        make_job(engine, project)
    gate = threading.Barrier(2)

    def work(worker: str) -> list[tuple[str, int]]:
        held = []
        for _ in range(rounds):
            gate.wait()  # Both reach for the queue at the same moment, every round.
            with transaction(engine) as session:
                job = leases.claim_training(session, worker, ["cpu"], 30)
                if job is not None:
                    held.append((job.id, job.fence))
        return held

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, ["worker-a", "worker-b"])
    everything = first + second
    assert len(everything) == rounds
    assert len({job_id for job_id, _ in everything}) == rounds
    assert {fence for _, fence in everything} == {1}
    assert first
    assert second


def test_order_is_priority_then_fairness_then_age(engine: Engine, project: str) -> None:
    other = make_project(engine, "other")
    running = make_job(engine, project)
    assert claim(engine).id == running
    older = make_job(engine, project)
    of_other = make_job(engine, other)
    urgent = make_job(engine, project, priority=5)
    # `other` has nothing running, so its job goes before the older one of the busy project.
    assert [claim(engine).id for _ in range(3)] == [urgent, of_other, older]


def test_a_job_that_comes_back_has_its_old_place(engine: Engine, project: str) -> None:
    """However it left the queue; its project and its priority count before that."""
    first, second = make_job(engine, project), make_job(engine, project)
    job = claim(engine)
    assert job.id == first
    with transaction(engine) as session:
        leases.give_back(session, first, job.fence, "The worker is shutting down.")
        assert queue.places(session, [session.get_one(Job, first)])[first][0] == 1
    assert claim(engine).id == first
    urgent = make_job(engine, project, priority=1)
    assert [claim(engine).id for _ in range(2)] == [urgent, second]


def test_a_worker_without_the_capability_leaves_the_job(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project, requires=["cuda"])
    with transaction(engine) as session:
        assert leases.claim_training(session, "worker-a", ["cpu"], 30) is None
        claimed = leases.claim_training(session, "worker-b", ["cpu", "cuda"], 30)
        assert claimed is not None
        assert claimed.id == job_id


def test_every_write_of_a_zombie_is_refused(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    zombie = claim(engine, "worker-a", lease_seconds=0.01)
    time.sleep(0.05)
    with transaction(engine) as session:
        assert leases.reap(session, max_failures=10) == [job_id]
    _skip_back_off(engine, job_id)
    holder = claim(engine, "worker-b")
    assert holder.fence == zombie.fence + 1

    writes = [
        lambda s: leases.renew(s, job_id, zombie.fence, 30),
        lambda s: leases.hold(s, job_id, zombie.fence),
        lambda s: leases.end(s, job_id, zombie.fence, Status.SUCCEEDED, "succeeded"),
        lambda s: leases.give_back(s, job_id, zombie.fence, "no"),
    ]
    for write in writes:
        with pytest.raises(LeaseLost), transaction(engine) as session:
            write(session)
    after = read_job(engine, job_id)
    assert (after.status, after.fence, after.worker_id) == ("running", holder.fence, "worker-b")


def test_reaping_goes_by_the_databases_clock(
    engine: Engine, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(engine, project)
    claim(engine, lease_seconds=30)
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    with transaction(engine) as session:
        assert leases.reap(session, max_failures=10) == []
    assert read_job(engine, job_id).status == "running"


def test_a_reaped_job_backs_off_and_ends_as_poison_without_progress(
    engine: Engine, project: str
) -> None:
    job_id = make_job(engine, project)
    for round_ in range(1, leases.POISON_AFTER + 1):
        claim(engine, lease_seconds=0.01)
        time.sleep(0.03)
        with transaction(engine) as session:
            leases.reap(session, max_failures=100)
        if round_ < leases.POISON_AFTER:
            assert read_job(engine, job_id).status == "queued"
            _skip_back_off(engine, job_id)
    job = read_job(engine, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "poison"
    with transaction(engine) as session:
        assert [a.outcome for a in attempts.listing(session, job_id)] == ["lease_expired"] * 3


@pytest.mark.parametrize("wish", Desired)
@pytest.mark.parametrize("outcome", ["trainer_crashed", "disk_full"])
def test_what_a_loss_comes_to_is_known_beforehand(
    engine: Engine, project: str, outcome: str, wish: Desired
) -> None:
    """A worker writes what the job leaves before it ends it."""
    job_id = make_job(engine, project)
    cap = leases.POISON_AFTER + 1
    came_to: list[str] = []
    while not came_to or came_to[-1] == Status.QUEUED:
        job = claim(engine)
        with transaction(engine) as session:
            held = leases.hold(session, job_id, job.fence)
            held.desired = wish
            foreseen = leases.fate(session, held, outcome, cap)
            came_to.append(leases.lose(session, held, outcome, "killed.", cap).status)
            assert foreseen == came_to[-1]
        _skip_back_off(engine, job_id)
    tries = leases.POISON_AFTER if outcome in leases.CRASHES else cap
    ends: dict[Desired, list[Status]] = {
        Desired.RUN: [Status.QUEUED] * (tries - 1) + [Status.FAILED],
        Desired.PAUSE: [Status.PAUSED],
        Desired.CANCEL: [Status.CANCELLED],
    }
    assert came_to == ends[wish]


def test_progress_between_interruptions_is_not_poison(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    for _ in range(leases.POISON_AFTER + 2):
        job = claim(engine)
        with transaction(engine) as session:
            held = leases.hold(session, job_id, job.fence)
            held.failures_without_progress = 0  # What publishing a checkpoint does.
            leases.lose(session, held, "trainer_crashed", "killed.", max_failures=100)
        _skip_back_off(engine, job_id)
    assert read_job(engine, job_id).status == "queued"


def test_a_crash_of_an_attempt_that_made_a_checkpoint_does_not_count(
    engine: Engine, project: str
) -> None:
    """Found by a soak: the crash after the last checkpoint was taken for one without progress."""
    job_id = make_job(engine, project)
    for round_ in range(leases.POISON_AFTER):
        job = claim(engine)
        with transaction(engine) as session:
            held = leases.hold(session, job_id, job.fence)
            if round_ == 0:
                held.failures_without_progress = 0
                checkpoints.add(session, checkpoint(job_id, job.fence))
            leases.lose(session, held, "trainer_crashed", "killed.", max_failures=100)
        _skip_back_off(engine, job_id)
    after = read_job(engine, job_id)
    assert (after.status, after.failures_without_progress) == ("queued", leases.POISON_AFTER - 1)


def checkpoint(job_id: str, fence: int) -> Checkpoint:
    return Checkpoint(
        job_id=job_id,
        fence=fence,
        step=1,
        model_id=f"ft:{job_id}:1",
        prefix=f"jobs/{job_id}/attempts/{fence}/checkpoints/step-1",
        files=[],
        bytes=0,
        metrics={},
        reason="interval",
        best=False,
    )


def test_too_many_interruptions_end_the_job(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    job = claim(engine)
    with transaction(engine) as session:
        held = leases.hold(session, job_id, job.fence)
        leases.lose(session, held, "lease_expired", "Gone.", max_failures=1)
    failed = read_job(engine, job_id)
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == ("failed", "worker_lost")


def test_a_returned_lease_costs_nothing(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    job = claim(engine)
    with transaction(engine) as session:
        leases.give_back(session, job_id, job.fence, "Deploy.")
    back = read_job(engine, job_id)
    assert (back.status, back.failures, back.worker_id) == ("queued", 0, None)
    assert claim(engine, "worker-b").fence == 2


def test_the_heartbeat_carries_what_the_user_wants(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    job = claim(engine)
    with transaction(engine) as session:
        control.ask(session, project, job_id, Desired.PAUSE, "save")
    with transaction(engine) as session:
        wish = leases.renew(session, job_id, job.fence, 30)
    assert (wish.desired, wish.stop_mode) == (Desired.PAUSE, "save")
    with transaction(engine) as session:
        leases.give_back(session, job_id, job.fence, "")
    assert read_job(engine, job_id).status == "paused"


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    claim(engine, lease_seconds=0.01)
    with transaction(engine) as session:
        control.ask(session, project, job_id, Desired.CANCEL, "save")
    time.sleep(0.03)
    with transaction(engine) as session:
        leases.reap(session, max_failures=10)
    assert read_job(engine, job_id).status == "cancelled"


def test_an_admission_that_never_ends_is_given_up_by_count(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project, queued=False)
    with transaction(engine) as session:
        assert leases.claim_admission(session, "control-a", 30, job_id) is None
    validated(engine, job_id)
    counts = []
    for _ in range(2):
        with transaction(engine) as session:
            job = leases.claim_admission(session, "control-a", 0.01, job_id)
            assert job is not None
            counts.append((job.fence, job.failures_without_progress))
        with transaction(engine) as session:
            assert leases.claim_admission(session, "control-b", 30, "ftjob-other") is None
        time.sleep(0.03)
    assert counts == [(1, 1), (2, 2)]


def test_waiting_tells_what_to_ring_for(engine: Engine, project: str) -> None:
    make_job(engine, project)
    make_job(engine, project, requires=["cuda"])
    with transaction(engine) as session:
        assert leases.waiting(session) == {(): 1, ("cuda",): 1}


def test_events_tell_the_whole_way(engine: Engine, project: str) -> None:
    job_id = make_job(engine, project)
    job = claim(engine)
    with transaction(engine) as session:
        leases.end(session, job_id, job.fence, Status.SUCCEEDED, "succeeded")
    with transaction(engine) as session:
        told = [
            e.data.get("status") for e in events.listing(session, job_id, after=None, limit=9).rows
        ]
    assert told == ["succeeded", "running", "queued", None, None]


def _skip_back_off(engine: Engine, job_id: str) -> None:
    with transaction(engine) as session:
        found = session.get(Job, job_id)
        assert found is not None
        found.not_before = None
