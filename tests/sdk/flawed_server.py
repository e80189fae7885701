"""A server of model files that goes wrong on demand: what a network, a proxy or a disk may do to a
download. It speaks real HTTP on a real port; everything that does not go wrong is tested against
the real service instead."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

MODEL = "ft:org/base:project:suffix:01k"


@dataclass
class Flaw:
    """How one answer with a file's bytes goes wrong."""

    cut_after: int | None = None
    """Close the connection after so many bytes."""
    corrupt: bool = False
    ignore_range: bool = False
    lie_about_range: bool = False
    too_much: bool = False
    status: int | None = None
    seconds_a_block: float = 0.0


@dataclass
class FlawedServer:
    files: dict[str, bytes]
    flaws: deque[Flaw] = field(default_factory=deque)
    """For the next answers, in order; without one, an answer is right."""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, Range and If-Range of each request for a file."""
    url: str = ""

    def etag(self, path: str) -> str:
        return f'"{hashlib.sha256(self.files[path]).hexdigest()}"'

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models/{model:path}/files")
        def listing(model: str) -> dict[str, Any]:
            assert model == MODEL
            return {
                "object": "list",
                "data": [
                    {
                        "path": path,
                        "bytes": len(content),
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "etag": self.etag(path),
                    }
                    for path, content in self.files.items()
                ],
            }

        @app.get("/v1/models/{model:path}/files/{path:path}")
        def one(request: Request, path: str) -> Response:
            # The model's id holds a `/` too; the file is what follows the last `/files/`.
            path = str(request.url.path).rpartition("/files/")[2]
            asked_range = request.headers.get("range")
            self.asked.append((path, asked_range, request.headers.get("if-range")))
            flaw = self.flaws.popleft() if self.flaws else Flaw()
            return self._answer(path, asked_range, request.headers.get("if-range"), flaw)

        return app

    def _answer(self, path: str, ranged: str | None, if_range: str | None, flaw: Flaw) -> Response:
        if flaw.status is not None:
            return Response(status_code=flaw.status)
        whole = self.files[path]
        start = 0
        if ranged and if_range == self.etag(path) and not flaw.ignore_range:
            start = int(ranged.removeprefix("bytes=").removesuffix("-"))
        body = whole[start:]
        if flaw.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        if flaw.too_much:
            body += b"more"
        headers = {"content-length": str(len(body)), "etag": self.etag(path)}
        if ranged and not flaw.ignore_range:
            shown = start + 1 if flaw.lie_about_range else start
            headers["content-range"] = f"bytes {shown}-{len(whole) - 1}/{len(whole)}"
        status = 206 if "content-range" in headers else 200
        return StreamingResponse(_blocks(body, flaw), status_code=status, headers=headers)


async def _blocks(body: bytes, flaw: Flaw) -> AsyncIterator[bytes]:
    block = 10_000
    for start in range(0, len(body), block):
        if flaw.cut_after is not None and start + block > flaw.cut_after:
            yield body[start : flaw.cut_after]
            raise ConnectionAbortedError("cut on purpose")
        yield body[start : start + block]
        await asyncio.sleep(flaw.seconds_a_block)


@contextmanager
def serve(server: FlawedServer) -> Iterator[FlawedServer]:
    config = uvicorn.Config(server.app(), port=0, log_level="critical")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        running.should_exit = True
        running.force_exit = True
        thread.join(10)
