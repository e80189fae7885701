"""Ways to kill what works on a job, and to see that the job comes out as if nothing had been."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass

import psutil

from tests.faults.fleet import Fleet
from tests.faults.processes import Process, wait_for

LONG = {"max_steps": 600, "checkpoint_every": 30}
"""Some seconds of training, a checkpoint every fraction of one."""


@dataclass
class Killer:
    """Kills the trainer or the worker of one job, at moments drawn from a seeded generator."""

    fleet: Fleet
    job_id: str
    worker: Process
    rng: random.Random

    def wait_training(self, beyond: int = 0) -> bool:
        """Until a step past this one is known; False when the job has ended before."""
        return (
            wait_for(f"{self.job_id} trains past step {beyond}", lambda: self._trains(beyond), 180)
            == "trains"
        )

    def wait_checkpoint(self, beyond: int) -> bool:
        """Until a checkpoint past this step is published; False when the job has ended before."""

        def published() -> str | None:
            if self.fleet.newest_checkpoint(self.job_id) > beyond:
                return "published"
            return self._ended()

        what = f"{self.job_id} has a checkpoint past step {beyond}"
        return wait_for(what, published, 180) == "published"

    def trainer(self, *, in_save: bool = False, number: signal.Signals = signal.SIGKILL) -> bool:
        """Kill the trainer, at once or as soon as it writes a checkpoint; whether it was there."""
        deadline = time.monotonic() + 30
        while in_save and not self.worker.is_saving(self.job_id):
            if self._ended() or time.monotonic() > deadline:
                return False
        trainer = self.worker.busy_trainer()
        if trainer is None:
            return False
        try:
            trainer.send_signal(number)
        except psutil.NoSuchProcess:
            return False
        return True

    def kill_worker(self) -> list[psutil.Process]:
        """SIGKILL to the worker, and another one on the same machine. The trainers that it had."""
        orphans = self.worker.trainers()
        self.worker.kill()
        self.worker = self.fleet.start_worker(machine=self.worker.data_dir)
        return orphans

    def pause(self, longest: float = 0.5) -> None:
        """Let a random moment pass, so that kills hit any point of what goes on."""
        time.sleep(self.rng.uniform(0, longest))

    def _trains(self, beyond: int) -> str | None:
        job = self.fleet.job(self.job_id)
        step = (job["progress"] or {}).get("step", 0)
        if job["status"] == "running" and job["phase"] in ("training", "saving") and step > beyond:
            return "trains"
        return "ended" if job["finished_at"] else None

    def _ended(self) -> str | None:
        return "ended" if self.fleet.job(self.job_id)["finished_at"] else None


def assert_as_if_unbroken(fleet: Fleet, job_id: str, **asked: int) -> None:
    """The job has succeeded with the weights and the series of an undisturbed run."""
    job = fleet.job(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert fleet.steps_seen(job_id) == list(range(1, asked["max_steps"] + 1))
    assert fleet.weights_sha256(job_id) == fleet.unbroken_sha256(**asked)
