"""The control pipe: `start` and `stop` from the supervisor, and its end when that is gone.

A daemon thread reads it. It acts only on the pipe's end, by leaving the process at once, so that
a trainer cannot outlive its supervisor; a stop is a flag that the loop looks at between steps.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from training.records import ORPHANED

StopMode = Literal["save", "now"]
_log = logging.getLogger(__name__)


class StopRequested(Exception):
    """Raised by `Control.check` where the run can be left: nothing is half done there."""

    def __init__(self, mode: StopMode) -> None:
        super().__init__(mode)
        self.mode = mode


class Control:
    """What the supervisor has asked for so far."""

    def __init__(self) -> None:
        self._folders: SimpleQueue[Path] = SimpleQueue()
        self._stop: StopMode | None = None

    def listen(self, fd: int) -> None:
        """Read commands from this pipe from now on, in a thread of their own."""
        threading.Thread(target=self._read, args=(fd,), name="control", daemon=True).start()

    def wait_for_start(self) -> Path:
        """Block until `start` comes; the folder that it names."""
        return self._folders.get()

    def stop(self, mode: StopMode) -> None:
        """Ask the run to end. `now` overrides an earlier `save`, never the reverse."""
        if self._stop != "now":
            self._stop = mode

    def check(self) -> None:
        """Raise StopRequested if a stop was asked for."""
        if self._stop is not None:
            raise StopRequested(self._stop)

    def _read(self, fd: int) -> None:
        # A raw read: a buffered one would hold a lock that the interpreter needs to exit.
        pending = b""
        while chunk := os.read(fd, 65536):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self._obey(line)
        os._exit(ORPHANED)

    def _obey(self, line: bytes) -> None:
        match _parsed(line):
            case {"cmd": "start", "folder": str(folder)}:
                self._folders.put(Path(folder))
            case {"cmd": "stop", "mode": "save" | "now" as mode}:
                self.stop(mode)
            case _:
                _log.error("Control line not understood: %r", line[:200])


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
