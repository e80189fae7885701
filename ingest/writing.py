"""Batches into an Arrow IPC file on a thread of its own, hashed on the way.

Writing and hashing leave Python's lock, so they cost the checking of the next batch little time.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

AHEAD = 2
"""Batches that may wait to be written: what they hold is memory."""


class _Hashed(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self.sha256 = hashlib.sha256()
        self._file = path.open("wb", buffering=0)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += self._file.write(view[written:])
        return written

    def close(self) -> None:
        self._file.close()
        super().close()


class ArrowWriter:
    """The same batches give the same bytes. An error of the disk is raised by a later call."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = _Hashed(path)
        self._writer = pa.ipc.new_file(self._file, schema)
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> ArrowWriter:
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(self._thread.submit(self._writer.write_batch, batch))
        if len(self._waiting) > AHEAD:
            self._waiting.popleft().result()

    def finish(self) -> str:
        """End the file; its SHA-256."""
        while self._waiting:
            self._waiting.popleft().result()
        self._writer.close()
        return self._file.sha256.hexdigest()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._file.close()
