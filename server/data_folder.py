"""The data folder of `up`: one owner at a time, and nothing left of an owner that was killed.

`lock` is held with flock(2) for the life of `up` and says who holds it. It also names the run: all
children carry the run's name in their environment (`LUTHIER_RUN`), so what a killed run left is
recognised by that name and never by a process's title or number, which others may bear too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

RUN_VARIABLE = "LUTHIER_RUN"


class AlreadyRunning(RuntimeError):
    """Another `up` holds the folder. The message says which, and how to end it."""


@dataclass(frozen=True)
class Run:
    pid: int
    url: str
    name: str


@contextlib.contextmanager
def hold(data_dir: Path, url: str, say: Callable[[str], None]) -> Iterator[Run]:
    """Own the folder: refuse when another run does, end what a killed run left behind.

    Raises AlreadyRunning.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(_who_holds(data_dir, _read(lock.name))) from None
        before = _read(lock.name)
        if before is not None:
            end_strays(before.name, say)
        run = Run(os.getpid(), url, secrets.token_hex(8))
        lock.truncate(0)
        lock.write(json.dumps(asdict(run)) + "\n")
        lock.flush()
        try:
            yield run
        finally:
            lock.truncate(0)


def end_strays(name: str, say: Callable[[str], None]) -> None:
    """End every process of a run whose `up` is dead.

    First all but PostgreSQL, at once: a job's state is safe in the database and its checkpoints,
    and there is no broker to hand it back through. Then PostgreSQL, which shuts down cleanly.
    """
    strays = [process for process in psutil.process_iter() if _belongs(process, name)]
    if not strays:
        return
    say(f"ending {len(strays)} processes that a killed run left behind")
    databases = [process for process in strays if _is_postmaster(process)]
    _signal(set(strays) - set(databases), signal.SIGKILL)
    _signal(databases, signal.SIGINT)
    _, stubborn = psutil.wait_procs(databases, timeout=60)
    _signal(stubborn, signal.SIGKILL)


def _belongs(process: psutil.Process, name: str) -> bool:
    try:
        return process.environ().get(RUN_VARIABLE) == name
    except psutil.Error:
        return False


def _is_postmaster(process: psutil.Process) -> bool:
    try:
        return Path(process.exe()).name == "postgres"
    except psutil.Error:
        return False


def _signal(processes: set[psutil.Process] | list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        # psutil compares the creation time first, so a number taken over by another is left alone
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _who_holds(data_dir: Path, run: Run | None) -> str:
    if run is None:
        return f"Another luthier-server is just starting or ending on {data_dir}. Try again soon."
    return (
        f"luthier-server runs on {data_dir} already: process {run.pid}, {run.url}. "
        f"End it with `kill {run.pid}`, or give this one another --data-dir."
    )


def _read(path: str) -> Run | None:
    try:
        return Run(**json.loads(Path(path).read_text()))
    except (ValueError, TypeError):  # empty, or cut short by a crash
        return None
