"""Object storage: one small interface over a local folder or an S3-compatible store.

Keys are ours alone and opaque; no part of one is ever a user's text. A write is atomic: readers
see the whole object or none. Every write returns the SHA-256 of what was written, and `fetch`
verifies it, so bytes that changed on the way are never used.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from core.errors import LuthierError, TooLarge
from core.settings import Settings

if TYPE_CHECKING:  # obstore has these for type checkers alone
    from obstore import Bytes
    from obstore.store import ClientConfig, RetryConfig

CHUNK_BYTES = 1024 * 1024
READ_BYTES = 4 * 1024 * 1024
"""Of an object at a time; twice that is held for each that is read."""
PART_BYTES = 8 * 1024 * 1024
"""Of a multipart upload: S3 refuses parts under 5 MiB, and more than 10,000 of them."""
CLIENT: ClientConfig = {
    "allow_http": True,
    "timeout": timedelta(hours=6),
    "read_timeout": timedelta(seconds=30),
}
"""`timeout` spans a whole download, however large; a server that falls silent is noticed by each
read."""
RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
"""Of one request. Callers that can wait longer repeat the whole operation."""
_STAGED = re.compile(r".+#\d+")
"""What a local store calls a file until it is complete."""


class StorageUnavailable(LuthierError):
    """The store refused, timed out or broke off; repeating may help."""

    code, status, kind = "storage_unavailable", 503, "server_error"


class ObjectMissing(LuthierError):
    """No object under this key."""

    code, status, kind = "storage_object_missing", 500, "server_error"


class ObjectCorrupt(LuthierError):
    """The bytes under this key are not those that were written."""

    code, status, kind = "storage_object_corrupt", 500, "server_error"


@dataclass(frozen=True)
class Written:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    key: str
    modified: datetime
    """By the store's clock."""


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """obstore's errors as ours. FileNotFoundError is what both stores raise for a missing key."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissing(f"Stored object {key} is missing.") from error
    except (BaseError, OSError) as error:
        raise StorageUnavailable(f"The object storage failed on {key}: {error}") from error


class ObjectStore:
    """Objects by key, in the store that the settings name."""

    def __init__(self, store: LocalStore | S3Store, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder
        """Of a local store."""

    @classmethod
    def from_settings(cls, settings: Settings) -> ObjectStore:
        url = urlsplit(settings.resolved_storage_url())
        if url.scheme == "file":
            folder = Path(unquote(url.path))
            return cls(LocalStore(prefix=folder, mkdir=True), folder)
        if url.scheme == "s3":
            secret = settings.s3_secret_access_key
            return cls(
                S3Store(
                    url.netloc,
                    prefix=url.path.strip("/") or None,
                    endpoint=settings.s3_endpoint,
                    region=settings.s3_region,
                    access_key_id=settings.s3_access_key_id,
                    secret_access_key=secret.get_secret_value() if secret else None,
                    client_options=CLIENT,
                    retry_config=RETRIES,
                )
            )
        raise SystemExit(
            f"LUTHIER_STORAGE_URL has the scheme {url.scheme!r}. "
            "Use file:///absolute/path or s3://bucket/prefix."
        )

    async def write_stream(
        self, key: str, chunks: AsyncIterable[bytes], *, limit: int | None = None
    ) -> Written:
        """Write what the iterator yields, hashing as it goes, in constant memory.

        Raises TooLarge once more than `limit` bytes have come; nothing is stored then.
        """
        digest, size = hashlib.sha256(), 0
        loop = asyncio.get_running_loop()

        async def limited() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                if limit is not None and size > limit:
                    raise TooLarge(f"The file is larger than the limit of {limit} bytes.")
                yield chunk

        async def hashed() -> AsyncIterator[bytes]:
            # A block is hashed in a thread while it is written and the next one comes.
            hashing: asyncio.Future[None] | None = None
            async for block in _blocks(limited(), CHUNK_BYTES):
                if hashing is not None:
                    await hashing
                hashing = loop.run_in_executor(None, digest.update, block)
                yield block
            if hashing is not None:
                await hashing

        with _translated(key):
            await obstore.put_async(self._store, key, hashed(), chunk_size=PART_BYTES)
        return Written(size, digest.hexdigest())

    def write_file(self, key: str, path: Path, moved: Callable[[], None] | None = None) -> Written:
        """Upload a local file, hashing as it goes. `moved` is called with each chunk taken."""
        digest, size = hashlib.sha256(), 0

        def read() -> Iterator[bytes]:
            nonlocal size
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    if moved is not None:
                        moved()
                    yield chunk

        with _translated(key):
            obstore.put(self._store, key, read(), chunk_size=PART_BYTES)
        return Written(size, digest.hexdigest())

    def write_bytes(self, key: str, data: bytes) -> Written:
        with _translated(key):
            obstore.put(self._store, key, data)
        return Written(len(data), hashlib.sha256(data).hexdigest())

    def read_bytes(self, key: str) -> bytes:
        """The whole object: for small ones only."""
        with _translated(key):
            return bytes(obstore.get(self._store, key).bytes())

    def fetch(
        self, key: str, path: Path, *, sha256: str, check: Callable[[], None] | None = None
    ) -> None:
        """Download to `path`, which appears only once the bytes match `sha256`.

        Raises ObjectCorrupt when they don't, and what `check` raises, which is asked now and again
        whether to go on.
        """
        # Of this call alone: one that hangs may have been left to itself by who called.
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        try:
            with part.open("wb") as file:
                for chunk in self._chunks(key):
                    if check is not None:
                        check()
                    digest.update(chunk)
                    file.write(chunk)
            _require_equal(key, digest.hexdigest(), sha256)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def verify(self, key: str, *, sha256: str, moved: Callable[[], None] | None = None) -> None:
        """Read an object back. Raises ObjectCorrupt when its bytes don't match `sha256`."""
        digest = hashlib.sha256()
        for chunk in self._chunks(key):
            if moved is not None:
                moved()
            digest.update(chunk)
        _require_equal(key, digest.hexdigest(), sha256)

    def _chunks(self, key: str) -> Iterator[Bytes]:
        for start in range(0, self.size(key), READ_BYTES):
            with _translated(key):
                yield obstore.get_range(self._store, key, start=start, length=READ_BYTES)

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes [start, end) of an object, in chunks: the next is read while one is handed on.

        Each is asked for by itself: a stream of all comes in pieces of 8 KiB from a local store,
        and was a fifth as fast to a client.
        """
        if start >= end:
            return

        def read(at: int) -> asyncio.Future[Bytes]:
            until = min(at + READ_BYTES, end)
            return asyncio.ensure_future(
                obstore.get_range_async(self._store, key, start=at, end=until)
            )

        ahead = read(start)
        try:
            for following in range(start + READ_BYTES, end + READ_BYTES, READ_BYTES):
                with _translated(key):
                    chunk = await ahead
                if following < end:
                    ahead = read(following)
                yield bytes(chunk)
        finally:
            ahead.cancel()

    def size(self, key: str) -> int:
        with _translated(key):
            return int(obstore.head(self._store, key)["size"])

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys below a prefix, which is a whole path segment such as `jobs/ID`."""
        return (entry.key for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects below a prefix."""
        with _translated(prefix):
            for batch in obstore.list(self._store, prefix=prefix):
                for found in batch:
                    yield Entry(found["path"], found["last_modified"])

    def sweep(self, before: datetime) -> int:
        """Remove what writers that were killed before then left half written; how many files.

        An S3 store drops unfinished multipart uploads by a lifecycle rule of its bucket.
        """
        swept = 0
        for folder, _, names in os.walk(self._folder) if self._folder else ():
            for name in filter(_STAGED.fullmatch, names):
                path = Path(folder, name)
                try:
                    if path.stat().st_mtime < before.timestamp():
                        path.unlink()
                        swept += 1
                except FileNotFoundError:
                    continue  # Completed, or swept by another.
        return swept

    def delete(self, *keys: str) -> None:
        """Remove objects. One that is gone already is no error: deletion is repeated safely."""
        for key in keys:
            try:
                with _translated(key):
                    obstore.delete(self._store, key)
            except ObjectMissing:
                continue

    def check(self) -> None:
        """Raise StorageUnavailable when the store cannot be listed."""
        with _translated("files"):
            next(iter(obstore.list(self._store, prefix="files", chunk_size=1)), None)


async def _blocks(chunks: AsyncIterable[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in blocks of at least `size`, but for the last."""
    block = bytearray()
    async for chunk in chunks:
        block += chunk
        if len(block) >= size:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _require_equal(key: str, found: str, expected: str) -> None:
    if found != expected:
        raise ObjectCorrupt(f"Stored object {key} has SHA-256 {found}, not {expected}.")
