"""Fetching a model's files so that what stands under a file's name is that file, whole.

Bytes go to `.NAME.<start of its SHA-256>.part` beside the target. A download that was cut goes on
from there with `Range`, and `If-Range` keeps the service from continuing with other bytes. When
all have come, the part is read back from disk, compared with the SHA-256 that the service gave,
fsynced and renamed. The hash in the part's name ties it to one content: a part of an older model
is never continued into a newer one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, Self

import httpx2
import openai

from luthier.types import ModelFile

OnProgress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes of all files."""

TRIES = 5
"""Attempts in a row that get no further, before a download is given up."""

INTERRUPTED = (httpx2.TransportError, openai.APIConnectionError, openai.InternalServerError)
"""What a download goes on after."""


class DownloadError(openai.OpenAIError):
    """A file could not be fetched whole; the message names it and says what to do."""


class PartialFile:
    """One file on its way, open and locked while in its `with` block."""

    def __init__(self, folder: Path, file: ModelFile) -> None:
        self.file = file
        self.target = folder / _safe(file.path)
        self.part = self.target.with_name(f".{self.target.name}.{file.sha256[:16]}.part")
        self.finished = self._is_here()
        self.received = file.bytes if self.finished else 0
        self._furthest = 0
        self._failures = 0
        self._mismatches = 0

    def __enter__(self) -> Self:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.part.open("ab")
        try:
            _lock(self._stream, self.part)
        except DownloadError:
            self._stream.close()
            raise
        self.received = self._stream.tell()
        if self.received > self.file.bytes:
            self._restart()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    @property
    def full(self) -> bool:
        return self.received == self.file.bytes

    def headers(self) -> dict[str, str]:
        """Ask for the rest. Without a coding: a range counts the bytes that are stored."""
        headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
        if self.received:
            headers["Range"] = f"bytes={self.received}-"
            headers["If-Range"] = self.file.etag
        return headers

    def begin(self, response: httpx2.Response) -> None:
        """Append to what is here if the answer is the range that was asked for; else start over,
        with this answer if it is the whole file."""
        expected = f"bytes {self.received}-{self.file.bytes - 1}/{self.file.bytes}"
        if response.status_code != 206:
            self._restart()
        elif response.headers.get("content-range") != expected:
            self._restart()
            raise httpx2.RemoteProtocolError("Another range came than was asked for.")

    def write(self, chunk: bytes) -> None:
        if self.received + len(chunk) > self.file.bytes:
            self._restart()
            raise httpx2.RemoteProtocolError(f"More than {self.file.bytes} bytes came.")
        self._stream.write(chunk)
        self.received += len(chunk)
        if self.received > self._furthest:
            self._furthest, self._failures = self.received, 0

    def end(self) -> None:
        """Call when an answer's body has ended; that may be too early without an error."""
        if not self.full:
            raise httpx2.RemoteProtocolError("The answer ended early.")

    def wait_after(self, error: Exception) -> float:
        """Seconds before the next try. Raises DownloadError after `TRIES` in vain."""
        self._failures += 1
        if self._failures >= TRIES:
            raise DownloadError(
                f"{self.file.path} stopped at {self.received} of {self.file.bytes} bytes and "
                f"{TRIES} tries got no further ({error}). What is here is kept: the same download "
                "goes on from there."
            ) from error
        return 0.25 * 2.0**self._failures

    def publish(self) -> None:
        """Verify what is on disk and give it its name. Wrong bytes are dropped and fetched once
        more; wrong again, they are an error."""
        self._stream.flush()
        actual = sha256(self.part)
        if actual != self.file.sha256:
            self._restart()
            self._furthest = 0
            self._mismatches += 1
            if self._mismatches > 1:
                self.part.unlink()
                raise DownloadError(
                    f"{self.file.path} arrived twice with wrong bytes: its SHA-256 was {actual} "
                    f"where the service promises {self.file.sha256}. Nothing was written under "
                    "its name. Try again; if it stays so, the stored file or a proxy on the way "
                    "is damaged."
                )
            return
        os.fsync(self._stream.fileno())
        self._stream.close()
        self.part.replace(self.target)
        self.finished = True

    def _is_here(self) -> bool:
        if not self.target.is_file() or self.target.stat().st_size != self.file.bytes:
            return False
        return sha256(self.target) == self.file.sha256

    def _restart(self) -> None:
        self._stream.truncate(0)
        self.received = 0


class Tally:
    """Turns each file's received bytes into the sums that a caller's `on_progress` takes."""

    def __init__(self, files: list[PartialFile], on_progress: OnProgress | None) -> None:
        self._files = files
        self._total = sum(part.file.bytes for part in files)
        self._on_progress = on_progress

    def report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(sum(part.received for part in self._files), self._total)


def _safe(path: str) -> Path:
    """A file's place below the folder. The service is trusted with bytes, not with names that
    lead elsewhere."""
    relative = PurePosixPath(path)
    leads_out = relative.is_absolute() or ".." in relative.parts or "\0" in path
    if os.name == "nt":  # drives and backslashes mean something there
        leads_out = leads_out or PureWindowsPath(path).parts != relative.parts
    if leads_out or not relative.parts:
        raise DownloadError(f"The service names a file {path!r}, which leads out of the folder.")
    return Path(*relative.parts)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _lock(stream: IO[bytes], path: Path) -> None:
    """Keep two processes from writing into one part. The lock ends with the open file."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DownloadError(
            f"Another process is downloading to {path}. Wait for it, or choose another folder."
        ) from None
