"""The record pipe: what the trainer tells its supervisor, one JSON object a line."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, Literal

ORPHANED = 3
"""Exit status of a trainer whose supervisor is gone."""


class Records:
    """Writes records to a pipe. A reader that is gone ends the process, as the contract says."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, type: str, **members: Any) -> None:
        """Write one record. Values must be JSON; NaN is refused, since JSON has none."""
        record = {"type": type, "time": round(time.time(), 3), **members}
        line = memoryview(json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b"\n")
        try:
            with self._lock:
                while line:
                    line = line[os.write(self._fd, line) :]
        except BrokenPipeError:
            os._exit(ORPHANED)

    def log(self, level: Literal["info", "warn", "error"], message: str, **data: Any) -> None:
        """Tell the user something: this becomes an event of the job."""
        self.write("log", level=level, message=message, **({"data": data} if data else {}))
