"""Serving stored bytes: ranges, strong ETags, conditions, HEAD (RFC 9110, sections 13 and 14).

What is served is a list of segments, each in memory or in object storage, whose sizes are known
beforehand. So a single file and an archive made on the fly are served by the same code, both with
Content-Length and both to be continued where a connection broke.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.errors import render
from core.errors import RangeNotSatisfiable
from core.storage import ObjectStore

OCTETS = "application/octet-stream"

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_LONGEST_NUMBER = 18
"""Digits: more than any size has, few enough to be a number at no cost."""


@dataclass(frozen=True)
class Inline:
    """Bytes at hand."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, store: ObjectStore, start: int, end: int) -> AsyncIterator[bytes]:
        yield self.data[start:end]


@dataclass(frozen=True)
class Stored:
    """All of a stored object."""

    key: str
    size: int

    def read(self, store: ObjectStore, start: int, end: int) -> AsyncIterator[bytes]:
        return store.stream(self.key, start, end)


@dataclass(frozen=True)
class Download:
    segments: Sequence[Inline | Stored]
    etag: str
    """Strong: it changes with any byte. Without its quotes."""
    filename: str
    media_type: str = OCTETS

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)


async def serve(request: Request, store: ObjectStore, download: Download) -> Response:
    """The answer to a GET or HEAD. Raises StorageUnavailable before the first byte is sent."""
    etag, size = f'"{download.etag}"', download.size
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    status, start, end = 200, 0, size
    wanted = _wanted(request, etag, size)
    if wanted is not None:
        status, (start, end) = 206, wanted
        if start >= end:
            return render(
                RangeNotSatisfiable(
                    f"The range {request.headers['range']!r} lies outside of the {size} bytes. "
                    "A download that has all of them is complete."
                ),
                request,
                {"Content-Range": f"bytes */{size}"},
            )
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers |= {
        "Content-Length": str(end - start),
        "Content-Type": download.media_type,
        "Content-Disposition": _attachment(download.filename),
        "X-Content-Type-Options": "nosniff",
    }
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    body = await _begun(_read(store, download.segments, start, end))
    return StreamingResponse(body, status_code=status, headers=headers)


def in_openapi(media_type: str = OCTETS) -> dict[int | str, dict[str, Any]]:
    """The successful `responses` of a route that ends in `serve`."""
    bytes_of_it = {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}
    return {
        200: {"description": "All of it.", **bytes_of_it},
        206: {"description": "The `Range` that was asked for.", **bytes_of_it},
        304: {"description": "It is what `If-None-Match` names."},
    }


def _wanted(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """The single range [start, end) that was asked for, empty if it cannot be satisfied.

    None stands for everything: no range, several, one of another unit, or one for other content
    than this (If-Range compares strongly, and never by date, for no date is strong enough).
    """
    header = request.headers.get("range")
    if header is None or request.headers.get("if-range", etag) != etag:
        return None
    found = _RANGE.fullmatch(header.strip())
    if found is None or max(map(len, found.groups())) > _LONGEST_NUMBER:
        return None
    first, last = found.groups()
    if first:
        end = min(int(last) + 1, size) if last else size
        return None if last and int(last) < int(first) else (int(first), end)
    return (max(size - int(last), 0), size) if last else None


def _matches(header: str | None, etag: str) -> bool:
    """If-None-Match, which compares weakly."""
    if header is None:
        return False
    named = [name.strip().removeprefix("W/") for name in header.split(",")]
    return etag in named or "*" in named


async def _read(
    store: ObjectStore, segments: Sequence[Inline | Stored], start: int, end: int
) -> AsyncIterator[bytes]:
    """The bytes [start, end) of the segments joined."""
    position = 0
    for segment in segments:
        first, last = max(start - position, 0), min(end - position, segment.size)
        if first < last:
            async for chunk in segment.read(store, first, last):
                yield chunk
        position += segment.size


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, its first chunk read already: so a store that fails gives an error, not a stub."""
    first = await anext(chunks, b"")

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return rest()


def _attachment(filename: str) -> str:
    """RFC 6266: the name in ASCII for old clients, and in UTF-8."""
    plain = re.sub(r'[^ -~]|["\\%]', "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
