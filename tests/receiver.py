"""A receiver of webhooks: a real HTTP server that keeps what it got and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai import OpenAI


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def unwrap(self, secret: str) -> Any:
        """What the stock package makes of it. Raises InvalidWebhookSignatureError."""
        client = OpenAI(api_key="none", base_url="http://127.0.0.1")
        return client.webhooks.unwrap(self.body, self.headers, secret=secret)


@dataclass
class Receiver:
    url: str
    received: list[Received] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers; 200 when none is left."""
    hold: threading.Event = field(default_factory=threading.Event)
    """Set but for tests in which a receiver dawdles."""

    def types(self, secret: str) -> list[str]:
        return [one.unwrap(secret).type for one in self.received]


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body))
            receiver.hold.wait(20)
            status = receiver.answers.pop(0) if receiver.answers else 200
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()
            self.wfile.write(f"this is {status}".encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Not among the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
        receiver.hold.set()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield receiver
        receiver.hold.set()
        server.shutdown()
        thread.join()
