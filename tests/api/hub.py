"""A small hub: the calls by which `huggingface_hub` finds and fetches the files of datasets and
models."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]

DROP_BYTES = 128
DROP_SECONDS = 0.1


@dataclass
class Hub:
    url: str = ""
    datasets: dict[tuple[str, str], Files] = field(default_factory=dict)
    """By name and revision."""
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    """`Authorization` headers that came."""
    models: dict[str, Files] = field(default_factory=dict)
    """By name, of one revision each."""
    slow: str = ""
    """Files whose names end so come in drops, if it is not empty."""
    dripping: threading.Event = field(default_factory=threading.Event)
    """Some of such a file has gone out."""
    left: threading.Event = field(default_factory=threading.Event)
    """Whoever fetched such a file has gone before its end."""

    @property
    def revision(self) -> dict[str, str]:
        return {name: commit_of(files) for name, files in self.models.items()}


def commit_of(files: Files) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(self.path)
            if token := self.headers.get("Authorization"):
                hub.tokens.add(token)
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            if parts[:2] == ["api", "datasets"]:
                self.info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
            elif parts[:2] == ["api", "models"]:
                self.tree("/".join(parts[2:4]))
            else:
                owner, name, _, revision, *path = parts[1:] if parts[0] == "datasets" else parts
                self.file(f"{owner}/{name}", revision, "/".join(path))

        do_HEAD = do_GET

        def info(self, repo: str, revision: str) -> None:
            files = hub.datasets.get((repo, revision))
            if files is None:
                there = any(known == repo for known, _ in hub.datasets)
                self.missing("RevisionNotFound" if there else "RepoNotFound")
                return
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            self.answer(
                json.dumps({"id": repo, "sha": commit_of(files), "siblings": siblings}).encode(),
                {"Content-Type": "application/json"},
            )

        def tree(self, repo: str) -> None:
            if repo not in hub.models:
                self.missing("RepoNotFound")
                return
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": commit_of({name: data})}
                for name, data in hub.models[repo].items()
            ]
            self.answer(json.dumps(entries).encode(), {"Content-Type": "application/json"})

        def file(self, repo: str, commit: str, path: str) -> None:
            datasets = [(known, files) for (known, _), files in hub.datasets.items()]
            for known, files in (*datasets, *hub.models.items()):
                if known == repo and commit_of(files) == commit and path in files:
                    data = files[path]
                    etag = f'"{hashlib.sha256(data).hexdigest()}"'
                    self.answer(data, {"ETag": etag, "X-Repo-Commit": commit})
                    return
            self.missing("EntryNotFound")

        def answer(self, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "GET":
                return
            if not (hub.slow and self.path.endswith(hub.slow)):
                self.wfile.write(data)
                return
            try:
                for start in range(0, len(data), DROP_BYTES):
                    self.wfile.write(data[start : start + DROP_BYTES])
                    hub.dripping.set()
                    time.sleep(DROP_SECONDS)
            except OSError:
                hub.left.set()

        def missing(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
