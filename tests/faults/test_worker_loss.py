"""Trainers and workers that are killed, frozen or have a clock of their own. Rows 5 to 9, 18."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import select

from models import leases
from models.checkpoints import Checkpoint
from models.db import sync_engine, transaction
from models.state import TERMINAL, Status
from tests.faults.fleet import LEASE_SECONDS, SWEEP_SECONDS, Fleet
from tests.faults.killing import LONG, Killer, assert_as_if_unbroken
from tests.faults.processes import assert_dead_within, wait_for
from tests.rows import make_job

TRAINER_DEAD_SECONDS = 5.0
CLAIM_SLACK_SECONDS = 20.0
"""For a loaded machine to do in what an idle one does at once."""


def test_a_killed_worker_takes_its_trainer_along_and_its_job_goes_on(
    fleet: Fleet, rng: random.Random
) -> None:
    """Row 5."""
    fleet.unbroken_sha256(**LONG)
    first, second = fleet.worker(), fleet.start_worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    killer = Killer(fleet, job_id, first, rng)
    assert killer.wait_training(rng.randrange(200))
    if not first.holds(job_id):
        first, second = second, first
    trainers = first.trainers()
    first.kill()
    assert_dead_within(TRAINER_DEAD_SECONDS, "the trainer of a dead worker", trainers)
    wait_for(
        "the job is claimed again",
        lambda: len(fleet.attempts(job_id)) > 1,
        LEASE_SECONDS + SWEEP_SECONDS + CLAIM_SLACK_SECONDS,
    )
    fleet.wait_status(job_id, "succeeded", "failed")
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["lease_expired", "succeeded"]


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.faults)])
@pytest.mark.timeout(3600)
def test_whatever_is_killed_the_weights_are_those_of_an_unbroken_run(
    fleet: Fleet, rng: random.Random, kills: int
) -> None:
    """Row 6: kill -9 of the trainer, inside a save too, and of the worker, at random steps."""
    fleet.unbroken_sha256(**LONG)
    worker = fleet.worker()
    done = {"trainer": 0, "trainer in a save": 0, "worker": 0}
    kinds = (list(done) * kills)[:kills]
    rng.shuffle(kinds)
    jobs = 0
    while kinds:
        jobs += 1
        job_id = fleet.submit(fleet.upload(), **LONG)
        killer = Killer(fleet, job_id, worker, rng)
        checkpoint = 0
        while kinds and killer.wait_training(checkpoint):
            killer.pause()
            match kinds[-1]:
                case "worker":
                    killer.kill_worker()
                    hit = True
                case kind:
                    hit = killer.trainer(in_save=kind == "trainer in a save")
            if hit:
                done[kinds.pop()] += 1
            checkpoint = fleet.newest_checkpoint(job_id)
            # Three deaths without a new checkpoint would rightly make it poison.
            if not killer.wait_checkpoint(checkpoint):
                break
        worker = killer.worker
        fleet.wait_status(job_id, "succeeded", "failed")
        assert_as_if_unbroken(fleet, job_id, **LONG)
    print(f"{sum(done.values())} kills ({done}) in {jobs} jobs")
    assert sum(done.values()) >= kills


@pytest.mark.faults
def test_a_worker_that_dies_before_its_first_heartbeat_is_reaped(fleet: Fleet) -> None:
    """Row 7."""
    for left in fleet.alive("worker"):
        fleet.end(left)
    mute = fleet.start_worker(LUTHIER_HEARTBEAT_SECONDS="1000")
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_status(job_id, "running")
    mute.kill()
    fleet.worker()
    fleet.wait_status(job_id, "succeeded", "failed")
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["lease_expired", "succeeded"]


@pytest.mark.faults
def test_a_worker_that_comes_back_takes_its_job_up_before_the_lease_is_over(
    fleet: Fleet, rng: random.Random
) -> None:
    """Row 5, on one machine: the next worker there finds the dead one's folder without an owner."""
    fleet.unbroken_sha256(**LONG)
    for left in fleet.alive("worker"):
        fleet.end(left)
    patient = fleet.start_worker(LUTHIER_LEASE_SECONDS="600")
    job_id = fleet.submit(fleet.upload(), **LONG)
    assert Killer(fleet, job_id, patient, rng).wait_training(rng.randrange(200))
    patient.kill()
    fleet.start_worker(machine=patient.data_dir)
    fleet.wait_status(job_id, "succeeded", "failed")
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["worker_died", "succeeded"]


def test_a_worker_works_on_a_disk_with_folders_of_others(fleet: Fleet) -> None:
    """Names that are no attempt's (a disk's own `lost+found`, a file manager's file) are let be."""
    for left in fleet.alive("worker"):
        fleet.end(left)
    machine = fleet.folder / "machines" / "shared"
    jobs = machine / "worker" / "jobs"
    (jobs / "lost+found").mkdir(parents=True)
    (jobs / ".DS_Store").touch()
    fleet.start_worker(machine=machine)
    assert fleet.wait_status(fleet.submit(fleet.upload(), max_steps=5), *TERMINAL)["status"] == (
        "succeeded"
    )
    assert (jobs / "lost+found").is_dir()
    shutil.rmtree(jobs / "lost+found")
    (jobs / ".DS_Store").unlink()


@pytest.mark.faults
def test_a_worker_works_on_a_disk_without_locks(fleet: Fleet) -> None:
    """As some network file systems are: nobody takes over at once there, and all else goes on."""
    for left in fleet.alive("worker"):
        fleet.end(left)
    unlocked = str(Path(__file__).parent / "unlocked")
    worker = fleet.start_worker(PYTHONPATH=unlocked)
    job = fleet.wait_status(fleet.submit(fleet.upload(), max_steps=5), *TERMINAL)
    assert job["status"] == "succeeded", job["error"]
    assert "keeps no locks" in worker.log.read_text()


ROUNDS = 200


def claim_in_rounds(url: str, worker: str, gate: Barrier) -> list[tuple[str, int]]:
    """One claimant, in a process of its own."""
    engine = sync_engine(url)
    held = []
    for _ in range(ROUNDS):
        gate.wait()
        with transaction(engine) as session:
            job = leases.claim_training(session, worker, ["rounds"], 60)
            if job is not None:
                held.append((job.id, job.fence))
    engine.dispose()
    return held


def test_two_hundred_rounds_of_two_claiming_processes_give_one_holder_a_fence(
    fleet: Fleet,
) -> None:
    """Row 8. Nobody else has the capability that these jobs need."""
    file_id = fleet.upload()
    made = {
        make_job(fleet.engine, fleet.project, training_file_id=file_id, requires=["rounds"])
        for _ in range(ROUNDS)
    }
    processes = multiprocessing.get_context("spawn")
    with processes.Manager() as manager, processes.Pool(2) as pool:
        gate = manager.Barrier(2)
        claimants = [
            pool.apply_async(claim_in_rounds, (fleet.postgres.part.url, name, gate))
            for name in ("worker-a", "worker-b")
        ]
        first, second = (claimant.get(240) for claimant in claimants)
    held = first + second
    assert first
    assert second
    assert len(held) == len(made)
    assert {job_id for job_id, _ in held} == made
    assert {fence for _, fence in held} == {1}
    with transaction(fleet.engine) as session:
        for job_id, fence in held:
            leases.end(session, job_id, fence, Status.CANCELLED, "cancelled")


def test_a_frozen_worker_wakes_to_nothing(fleet: Fleet, rng: random.Random) -> None:
    """Row 9: frozen past its lease, then resumed: every zombie write is refused, its trainer is
    killed, and nothing that was published moves back."""
    fleet.unbroken_sha256(**LONG)
    zombie = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    killer = Killer(fleet, job_id, zombie, rng)
    assert killer.wait_training(rng.randrange(100))
    trainer = zombie.busy_trainer()
    assert trainer is not None
    zombie.signal(signal.SIGSTOP)
    heir = fleet.start_worker()
    wait_for("the heir has the job", lambda: len(fleet.attempts(job_id)) == 2, 60)
    before = fleet.newest_checkpoint(job_id)
    zombie.signal(signal.SIGCONT)
    assert_dead_within(10, "the zombie's trainer", [trainer])
    fleet.wait_status(job_id, "succeeded", "failed")
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["lease_expired", "succeeded"]
    with transaction(fleet.engine) as session:
        statement = select(Checkpoint.fence, Checkpoint.step).where(Checkpoint.job_id == job_id)
        made = [tuple(row) for row in session.execute(statement.order_by(Checkpoint.created_at))]
    assert made == sorted(made), "a checkpoint of the zombie came after its heir's"
    assert before <= made[-1][1]
    assert fleet.wait_status(fleet.submit(fleet.upload(), max_steps=5), "succeeded")
    assert zombie.alive
    assert heir.alive


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.faults
def test_a_clock_that_is_off_changes_nothing(fleet: Fleet, hours: int) -> None:
    """Row 18: no early expiry, no immortality: leases go by the database's clock."""
    for left in fleet.alive("worker"):
        fleet.end(left)
    skewed = fleet.start_worker(
        PYTHONPATH=str(Path(__file__).parent / "skewed"), LUTHIER_FAULTS_SKEW=str(3600 * hours)
    )
    assert "the clock is off by" in skewed.log.read_text()
    job_id = fleet.submit(fleet.upload(), max_steps=600, checkpoint_every=100)
    fleet.wait_step(job_id, 300)
    assert len(fleet.attempts(job_id)) == 1, "it was taken for dead"
    skewed.kill()
    wait_for(
        "its lease expires",
        lambda: fleet.attempts(job_id)[0]["outcome"] == "lease_expired",
        LEASE_SECONDS + SWEEP_SECONDS + CLAIM_SLACK_SECONDS,
    )
    fleet.worker()
    job = fleet.wait_status(job_id, "succeeded", "failed")
    assert job["status"] == "succeeded"
