"""A real HTTP proxy before a real S3 server, which answers badly on demand."""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Kind = Literal["error", "hang", "slow", "truncated", "wrong bytes", "wrong upload"]

SLOW_SECONDS = 0.5
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Rule:
    """What goes wrong, for which requests, how often."""

    kind: Kind
    methods: tuple[str, ...]
    path: re.Pattern[str]
    share: float
    left: int | None


class S3Proxy:
    """Forwards to `upstream`; `inject` makes it harm, `calm` makes it honest again."""

    def __init__(self, upstream: str, rng: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._rules: list[Rule] = []
        self._rng = rng
        self._lock = threading.Lock()
        self._calmed = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: tests read the counts instead."""

            def _forward(self) -> None:
                proxy.forward(self, upstream)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def inject(
        self,
        kind: Kind,
        *,
        methods: tuple[str, ...] = ("GET", "PUT", "POST", "DELETE", "HEAD"),
        path: str = "",
        share: float = 1.0,
        times: int | None = None,
    ) -> None:
        """Harm this share of the requests whose path matches, at most so many times."""
        self._rules.append(Rule(kind, methods, re.compile(path), share, times))

    def calm(self) -> None:
        """What hangs is broken off without an answer."""
        self._rules.clear()
        calmed, self._calmed = self._calmed, threading.Event()
        calmed.set()

    def forward(self, request: BaseHTTPRequestHandler, upstream: str) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kinds = set(self._drawn(request.command, request.path))
        if "hang" in kinds:
            self._calmed.wait()
            request.close_connection = True
            return
        if "slow" in kinds:
            time.sleep(SLOW_SECONDS)
        if "error" in kinds:
            request.send_response(500)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if "wrong upload" in kinds:
            body = _wrong(body)
        connection = http.client.HTTPConnection(upstream, timeout=60)
        with closing(connection):
            headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        if "wrong bytes" in kinds and answer.status < 300:
            data = _wrong(data)
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else len(data)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data[: len(data) // 2] if "truncated" in kinds else data)
        if "truncated" in kinds:
            request.close_connection = True

    def _drawn(self, method: str, path: str) -> Iterator[Kind]:
        with self._lock:
            for rule in self._rules:
                fits = method in rule.methods and rule.path.search(path)
                if fits and rule.left != 0 and self._rng.random() < rule.share:
                    if rule.left is not None:
                        rule.left -= 1
                    self.done[rule.kind] += 1
                    yield rule.kind


def _wrong(data: bytes) -> bytes:
    """One bit flipped in the middle, the length kept."""
    if not data:
        return data
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
