"""The trainer as a child process: started ahead of need, spoken to through two pipes.

docs/job-folder.md is the contract. The child gets an almost empty environment, a process group of
its own, and a file for its output; it dies when its control pipe closes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.base import storable
from worker import memory

log = logging.getLogger(__name__)

INHERITED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "TZ",
)
LIMITS = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 65_536}
"""No core dumps, which would hold users' data. Address space is not limited: CUDA reserves far
more of it than it uses."""
LOG_TAIL_BYTES = 16 * 1024
READ_BYTES = 64 * 1024
POLL_SECONDS = 0.02
KERNELS = Path(".cache", "torchinductor")
"""What `torch.compile` has made, below a trainer's home, for the next runs."""
NUL = b"\\u0000"
"""As JSON writes it. What models and users' data say may hold it, and the database cannot."""

Record = dict[str, Any]


class Trainer:
    """One child process, good for one job."""

    def __init__(self, scratch: Path, *, threads: int | None = None) -> None:
        # Without a name, so that it goes with its last user, however that one ends.
        self._log = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        read_end, write_end = os.pipe()
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "HOME": str(scratch),
            "LANG": "C.UTF-8",
            "LUTHIER_RECORD_FD": str(write_end),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            # Code that is run, of no limited size: not to lie where others may write.
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / KERNELS),
        }
        environment |= memory.environment()
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "training"],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=(write_end,),
                cwd=scratch,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        _limit(self._process.pid)
        self._records = os.fdopen(read_end, "rb", buffering=0)
        self._rest = b""
        self._ended = False
        self._ready: Record | None = None
        self._reaping = threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._has_exited()

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
            record = json.loads(line)
            yield storable(record) if NUL in line else record

    @property
    def ended(self) -> bool:
        """Whether the record pipe has closed: the process is gone or going."""
        return self._ended

    def wait(self, timeout: float) -> int:
        """The exit status, negative for a signal; kills the child when it takes too long."""
        deadline = time.monotonic() + timeout
        while not self._has_exited() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return self._reap()

    def kill(self) -> None:
        """SIGKILL to the whole process group. Safe to repeat, and from any thread."""
        with self._reaping:
            self._kill_group()

    def _kill_group(self) -> None:
        # Once the child is reaped, its number may be another's.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _has_exited(self) -> bool:
        """Whether the child is dead. Leaves it unreaped."""
        if self._process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def _reap(self) -> int:
        """End what is left of the group while its number is still its own, then the child."""
        with self._reaping:
            self._kill_group()
            return self._process.wait()

    def close(self) -> None:
        """End the child whatever it does."""
        self._reap()
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                log.debug("the trainer's control pipe was broken already")
        self._records.close()
        self._log.close()

    def log_tail(self) -> str:
        """The last lines that the child printed."""
        # The position in the file is the child's, which writes there: it must not be moved.
        size = os.fstat(self._log.fileno()).st_size
        data = os.pread(self._log.fileno(), LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES))
        return data.decode(errors="replace").replace("\0", "")

    def _command(self, command: Record) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            log.warning("the trainer ended before it took the command %s", command["cmd"])


def _limit(pid: int) -> None:
    """Limit a child from here: nothing may run in it between fork and exec beside our threads."""
    for which, most in LIMITS.items():
        _, hard = resource.getrlimit(which)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, which, (limit, limit))


class NoTrainer(RuntimeError):
    """One trainer after another ended while it was being started."""


class Standby:
    """Keeps one trainer warm, so that a claimed job does not wait for torch to be imported."""

    READY_SECONDS = 180.0
    STARTS = 3
    """A trainer may be killed before it is ready, by the OOM killer say; not again and again."""

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
        """The waiting trainer's `ready` record: what device and versions this worker has.

        Raises NoTrainer, TimeoutError.
        """
        reason = ""
        for _ in range(self.STARTS):
            self.warm()
            assert self._trainer is not None
            try:
                return self._trainer.wait_ready(self.READY_SECONDS)
            except EOFError as error:
                reason = str(error)
                log.warning("a trainer ended before it was ready, another is started")
                self.close()
        raise NoTrainer(f"{self.STARTS} trainers were started and ended. The last: {reason}")

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
