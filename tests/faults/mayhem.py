"""What a soak does to a fleet: one random fault after another, each on real processes.

Faults are drawn, in kind and in time, from a seeded generator. A fault that finds nothing to hit
(no trainer is alive at that moment) is not counted.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import select

from models.db import transaction
from models.jobs import Job
from models.leases import POISON_AFTER
from models.state import Status
from tests.faults.fleet import LEASE_SECONDS, Fleet
from tests.faults.processes import Process

Fault = Callable[["Mayhem"], bool]
"""Does its harm, and says whether there was something to harm."""

SAVE_SECONDS = 10.0
"""How long a save is waited for."""
GRACE_SECONDS = 120.0


@dataclass
class Mayhem:
    """Harms a fleet of `workers` training workers, each with a machine (a data folder) of its own,
    and brings back what it took away."""

    fleet: Fleet
    rng: random.Random
    workers: int
    machines: list[Process] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        self.machines = [self.fleet.start_worker() for _ in range(self.workers)]

    def strike(self) -> str | None:
        """One fault, by the weights below; its name, or None if it had nothing to hit."""
        name = self.rng.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()])[0]
        _, fault = FAULTS[name]
        if not fault(self):
            return None
        self.done[name] += 1
        return name

    def mend(self) -> None:
        """Everything runs again."""
        self.fleet.mend()
        self.machines = [
            machine if machine.alive else self.replaced(machine) for machine in self.machines
        ]

    def replaced(self, dead: Process) -> Process:
        """Another worker on a dead one's machine. Not waited for: faults meet its start too."""
        return self.fleet.start("worker", machine=dead.data_dir)

    def lose(self, worker: Process) -> None:
        self.machines[self.machines.index(worker)] = self.replaced(worker)

    def a_worker(self) -> Process:
        """One to harm. A job that crashed twice without a new checkpoint is spared while it can
        be: the third crash would rightly make it poison."""
        self.machines = [m if m.alive else self.replaced(m) for m in self.machines]
        with transaction(self.fleet.engine) as session:
            statement = select(Job.id).where(Job.failures_without_progress >= POISON_AFTER - 1)
            tender = list(session.scalars(statement.where(Job.status == Status.RUNNING)))
        safe = [m for m in self.machines if not any(m.holds(job_id) for job_id in tender)]
        return self.rng.choice(safe or self.machines)

    def pause(self, longest: float) -> None:
        time.sleep(self.rng.uniform(0, longest))


def _kill(process: psutil.Process | None) -> bool:
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        return True
    return False


def _training(worker: Process) -> list[Path]:
    return list((worker.data_dir / "worker" / "jobs").glob("*"))


def kill_trainer(mayhem: Mayhem) -> bool:
    worker = mayhem.a_worker()
    return bool(_training(worker)) and _kill(worker.busy_trainer())


def kill_trainer_in_save(mayhem: Mayhem) -> bool:
    worker = mayhem.a_worker()
    deadline = time.monotonic() + SAVE_SECONDS
    while not worker.is_saving():
        if time.monotonic() > deadline:
            return False
    return _kill(worker.busy_trainer())


def kill_standby(mayhem: Mayhem) -> bool:
    trainers = mayhem.a_worker().trainers()
    return _kill(max(trainers, key=lambda child: child.create_time(), default=None))


def kill_worker(mayhem: Mayhem) -> bool:
    worker = mayhem.a_worker()
    worker.kill()
    mayhem.lose(worker)
    return True


def kill_control(mayhem: Mayhem) -> bool:
    for control in mayhem.fleet.alive("control"):
        control.kill()
    mayhem.pause(2)
    mayhem.fleet.start("control")
    return True


def kill_api(mayhem: Mayhem) -> bool:
    for api in mayhem.fleet.alive("api"):
        api.kill()
    mayhem.pause(1)
    mayhem.fleet.start_api()
    return True


def freeze_worker(mayhem: Mayhem) -> bool:
    """Past its lease, so that it wakes as a zombie."""
    worker = mayhem.a_worker()
    worker.signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 1)
    mayhem.pause(3)
    worker.signal(signal.SIGCONT)
    return True


def deploy_worker(mayhem: Mayhem) -> bool:
    """SIGTERM, and another in its place."""
    worker = mayhem.a_worker()
    mayhem.fleet.end(worker, GRACE_SECONDS)
    mayhem.lose(worker)
    return True


def restart_database(mayhem: Mayhem) -> bool:
    mayhem.fleet.postgres.restart()
    return True


def freeze_database(mayhem: Mayhem) -> bool:
    """Sometimes for longer than a lease."""
    mayhem.fleet.postgres.signal(signal.SIGSTOP)
    mayhem.pause(2 * LEASE_SECONDS)
    mayhem.fleet.postgres.signal(signal.SIGCONT)
    return True


def restart_broker(mayhem: Mayhem) -> bool:
    mayhem.fleet.valkey.stop()
    mayhem.pause(2)
    mayhem.fleet.valkey.start()
    return True


def freeze_broker(mayhem: Mayhem) -> bool:
    mayhem.fleet.valkey.signal(signal.SIGSTOP)
    mayhem.pause(5)
    mayhem.fleet.valkey.signal(signal.SIGCONT)
    return True


def flush_broker(mayhem: Mayhem) -> bool:
    mayhem.fleet.flush_broker()
    return True


FAULTS: dict[str, tuple[float, Fault]] = {
    "kill -9 of a trainer": (4, kill_trainer),
    "kill -9 of a trainer in a save": (4, kill_trainer_in_save),
    "kill -9 of a standby trainer": (1, kill_standby),
    "kill -9 of a worker": (5, kill_worker),
    "kill -9 of the control worker": (1, kill_control),
    "kill -9 of the API": (1, kill_api),
    "worker frozen past its lease": (1, freeze_worker),
    "SIGTERM to a worker": (1, deploy_worker),
    "database restarted": (0.5, restart_database),
    "database frozen": (0.5, freeze_database),
    "broker restarted": (0.5, restart_broker),
    "broker frozen": (0.5, freeze_broker),
    "broker flushed": (0.5, flush_broker),
}
"""Each with its weight among the others."""
