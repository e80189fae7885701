"""The processes of a fleet: real servers and the service's own, which tests may kill."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from server.children import spawn, stop
from server.embedded import Part

T = TypeVar("T")

POLL_SECONDS = 0.05


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = 60.0) -> T:
    """What `probe` returns once it returns something true. Fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def assert_dead_within(seconds: float, what: str, processes: list[psutil.Process]) -> None:
    """Each runs no more: gone, or a zombie whose parent has not taken note yet."""

    def all_dead() -> bool | None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    return None
        return True

    wait_for(f"{what} is dead", all_dead, seconds)


@dataclass
class Server:
    """An embedded server that can be stopped, killed, frozen and started again."""

    part: Part
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = spawn(self.part.child, log.fileno())
        wait_for(f"{self.part.child.name} answers", lambda: self.part.is_ready() or None)

    def stop(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            stop(self.part.child, self.process)
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def mend(self) -> None:
        """Let it run, whatever was done to it."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        else:
            self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """To the server and its children: PostgreSQL's lead sessions of their own."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@dataclass
class Process:
    """One of the service's own processes, in a group of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    data_dir: Path
    is_plain: bool = True
    """Started with the fleet's settings and nothing else."""

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to this one process, not to its children: what a crash or the OOM killer does."""
        self.popen.kill()
        self.popen.wait()

    def trainers(self) -> list[psutil.Process]:
        """This worker's trainer processes, the standby among them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [
                child
                for child in psutil.Process(self.pid).children()
                if "training" in child.cmdline()
            ]
        return []

    def holds(self, job_id: str) -> bool:
        """Whether an attempt of this job goes on here."""
        return any((self.data_dir / "worker" / "jobs").glob(f"{job_id}.*"))

    def is_saving(self, job_id: str = "*") -> bool:
        """Whether a checkpoint is being written here at this moment."""
        # A folder may go between being listed and being looked into.
        with contextlib.suppress(FileNotFoundError):
            jobs = self.data_dir / "worker" / "jobs"
            return any(jobs.glob(f"{job_id}.*/checkpoints/*.tmp"))
        return False

    def busy_trainer(self) -> psutil.Process | None:
        """The trainer with the job: the oldest, since the next standby is started when it begins.

        Between two attempts it is the standby.
        """
        return min(self.trainers(), key=lambda child: child.create_time(), default=None)
