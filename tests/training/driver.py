"""A real trainer child, driven through its pipes as a supervisor would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

Record = dict[str, Any]


class Trainer:
    """One `python -m training`. Leaving the block ends it, whatever it does."""

    def __init__(self, before_exec: Callable[[], None] | None = None) -> None:
        read_end, write_end = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        self.process = subprocess.Popen(
            [sys.executable, "-m", "training"],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env={"LUTHIER_RECORD_FD": str(write_end), "OMP_NUM_THREADS": "1"},
            pass_fds=[write_end],
            cwd=Path(__file__).parents[2],
            start_new_session=True,
            preexec_fn=before_exec,
        )
        os.close(write_end)
        self._pipe = os.fdopen(read_end, "rb")
        self.records: list[Record] = []

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._pipe.close()
        self._log.close()

    def start(self, folder: Path) -> Trainer:
        """Hand it a job."""
        self._command(cmd="start", folder=str(folder))
        return self

    def stop(self, mode: str) -> None:
        self._command(cmd="stop", mode=mode)

    def hang_up(self) -> None:
        """Close the control pipe, as the kernel does for a supervisor that died."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def read(self) -> Iterator[Record]:
        """Records as they come, to the end of the pipe. Half a line at the end is dropped: the
        process was killed in the middle of it."""
        for line in self._pipe:
            if line.endswith(b"\n"):
                self.records.append(json.loads(line))
                yield self.records[-1]

    def wait_for(self, type: str, **members: Any) -> Record:
        """The next record of this type and these members."""
        wanted = {"type": type, **members}
        for record in self.read():
            if wanted.items() <= record.items():
                return record
        raise AssertionError(f"no record {wanted} came. The trainer's log:\n{self.log()}")

    def finish(self) -> Record:
        """Read to the end; the last record."""
        for _ in self.read():
            pass
        self.process.wait()
        assert self.records, self.log()
        return self.records[-1]

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _command(self, **command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()
