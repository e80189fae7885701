"""The report and the event file, drawn by a process of its own that may fail, hang or be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from worker.context import Context
from worker.trainer import INHERITED

SECONDS = 60.0
"""Counted from its start: a job's end waits no longer for its report."""
FOLDER = "report"
"""Below the job folder, as `python -m training.report` writes it."""


class Drawing:
    """One such process, started at once beside whatever else the end of a job takes."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the block
        self._ends_at = time.monotonic() + SECONDS
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            # Its list of fonts takes a second to make.
            "MPLCONFIGDIR": str(context.scratch("cache", "matplotlib")),
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "training.report", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> Drawing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def finish(self) -> tuple[list[Path], str | None]:
        """Wait for it, but not for long; the files that are whole, and why there are no others."""
        reason = None
        try:
            if self._process.wait(max(0.0, self._ends_at - time.monotonic())) != 0:
                reason = self._last_line() or f"it ended with status {self._process.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"it took longer than {SECONDS:.0f} s"
        found = self._folder.iterdir() if self._folder.exists() else ()
        return sorted(path for path in found if not path.name.startswith(".")), reason

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
