"""The trainer as a child process: started ahead of need, spoken to through two pipes.

docs/job-folder.md is the contract. The child gets an almost empty environment, a process group of
its own, and a file for its output; it dies when its control pipe closes.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

log = logging.getLogger(__name__)

INHERITED = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TZ")
LOG_TAIL_BYTES = 16 * 1024
READ_BYTES = 64 * 1024

Record = dict[str, Any]


class Trainer:
    """One child process, good for one job."""

    def __init__(self, scratch: Path, *, threads: int | None = None) -> None:
        self.log_path = scratch / f"trainer-{time.time_ns()}.log"
        read_end, write_end = os.pipe()
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "HOME": str(scratch),
            "LANG": "C.UTF-8",
            "LUTHIER_RECORD_FD": str(write_end),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        try:
            with self.log_path.open("wb") as log_file:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "training"],
                    stdin=subprocess.PIPE,
                    stdout=log_file,
                    stderr=subprocess.STDOUT,
                    pass_fds=(write_end,),
                    cwd=scratch,
                    env=environment,
                    start_new_session=True,
                )
        finally:
            os.close(write_end)
        self._records = os.fdopen(read_end, "rb", buffering=0)
        self._rest = b""
        self._ended = False
        self._ready: Record | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, timeout: float) -> Record:
        """The `ready` record: the child has imported everything. Raises TimeoutError, EOFError."""
        deadline = time.monotonic() + timeout
        while self._ready is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"The trainer was not ready within {timeout:.0f} s.")
            for record in self.read(timeout=0.5):
                if record["type"] == "ready":
                    self._ready = record
            if self._ended:
                raise EOFError(f"The trainer ended before it was ready. {self.log_tail()}")
        return self._ready

    def start(self, folder: Path) -> None:
        self._command({"cmd": "start", "folder": str(folder)})

    def stop(self, mode: str) -> None:
        """Ask it to end after the step under way; `save` makes a checkpoint first."""
        self._command({"cmd": "stop", "mode": mode})

    def read(self, timeout: float) -> Iterator[Record]:
        """The records that have come, waiting for the first at most `timeout` seconds."""
        ready, _, _ = select.select([self._records], [], [], timeout)
        if not ready:
            return
        data = self._records.read(READ_BYTES)
        if not data:
            self._ended = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    @property
    def ended(self) -> bool:
        """Whether the record pipe has closed: the process is gone or going."""
        return self._ended

    def wait(self, timeout: float) -> int:
        """The exit status, negative for a signal; kills the child when it takes too long."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """SIGKILL to the whole process group. Safe to repeat."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """End the child whatever it does, reap it, and remove its log."""
        self.kill()
        self._process.wait()
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                log.debug("the trainer's control pipe was broken already")
        self._records.close()
        self.log_path.unlink(missing_ok=True)

    def log_tail(self) -> str:
        """The last lines that the child printed."""
        with self.log_path.open("rb") as file:
            return _tail(file)

    def _command(self, command: Record) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            log.warning("the trainer ended before it took the command %s", command["cmd"])


def _tail(file: BinaryIO) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LOG_TAIL_BYTES))
    return file.read().decode(errors="replace").replace("\0", "")


class Standby:
    """Keeps one trainer warm, so that a claimed job does not wait for torch to be imported."""

    READY_SECONDS = 180.0

    def __init__(self, scratch: Path, *, threads: int | None = None) -> None:
        self._scratch = scratch
        self._threads = threads
        self._trainer: Trainer | None = None

    def warm(self) -> None:
        """Start a trainer unless one is waiting already. Returns at once."""
        if self._trainer is None or not self._trainer.alive:
            self.close()
            self._trainer = Trainer(self._scratch, threads=self._threads)

    def wait_ready(self) -> Record:
        """The waiting trainer's `ready` record: what device and versions this worker has."""
        self.warm()
        assert self._trainer is not None
        return self._trainer.wait_ready(self.READY_SECONDS)

    def take(self) -> Trainer:
        """A ready trainer; it is the caller's from here on."""
        self.wait_ready()
        assert self._trainer is not None
        taken, self._trainer = self._trainer, None
        return taken

    def close(self) -> None:
        if self._trainer is not None:
            self._trainer.close()
            self._trainer = None
