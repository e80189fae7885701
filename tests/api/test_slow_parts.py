"""A storage or a hub that answers late holds up those who wait for it, and nobody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from models import registry
from models.db import transaction
from models.registry import FineTunedModel
from tests.api.conftest import Live, running, settings_for
from tests.rows import make_file, make_job

NOTHING_THERE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Silent:
    """A server that takes requests, and answers none before `speak`."""

    def __init__(self) -> None:
        self.asked, self._speaks = threading.Event(), threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            self.asked.set()
            self._speaks.wait(60)
            connection.sendall(NOTHING_THERE)

    def speak(self) -> None:
        self._speaks.set()

    def close(self) -> None:
        self.speak()
        self._server.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


@pytest.fixture
def slow(live: Live, silent: Silent, tmp_path: Path) -> Iterator[Live]:
    """The API on the same database, its objects in a store that does not answer."""
    settings = settings_for(
        tmp_path,
        str(live.settings.database_url),
        str(live.settings.redis_url),
        secret=live.settings.signing_secret().decode(),
        storage_url="s3://bucket",
        s3_endpoint=silent.url,
        s3_access_key_id="key",
        s3_secret_access_key="secret",
    )
    with running(settings) as url:
        try:
            yield Live(**(vars(live) | {"url": url, "settings": settings}))
        finally:
            silent.speak()


def waiting_in_a_transaction(live: Live) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE state = 'idle in transaction' AND datname = current_database()"
    )
    with live.engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


@pytest.mark.parametrize("what", ["content", "files/x.bin"])
def test_who_waits_for_bytes_holds_no_connection_to_the_database(
    live: Live, slow: Live, silent: Silent, what: str
) -> None:
    path = f"/files/{make_file(live.engine, live.project_id)}/content"
    if what != "content":
        with transaction(live.engine) as session:
            model = FineTunedModel(
                id="ft:slow",
                project_id=live.project_id,
                job_id=make_job(live.engine, live.project_id),
                base_model="tiny",
                task="fill-mask",
                prefix="jobs/slow",
                files=[{"path": "x.bin", "bytes": 3, "sha256": "0" * 64}],
                bytes=3,
                metrics={},
            )
            registry.add(session, model)
        path = f"/models/{model.id}/{what}"

    assert held_meanwhile(live, slow, silent, "GET", path) == "storage_object_missing"


def test_nor_does_who_waits_for_the_hub(
    live: Live, slow: Live, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow.settings, "hub", True)
    # The address is read when the package is imported, so it is set where it is kept.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", silent.url)
    file_id = make_file(live.engine, live.project_id)
    request = {"model": "owner/of-the-hub", "training_file": file_id}
    job_id = make_job(live.engine, live.project_id, training_file_id=file_id, request=request)
    path = f"/fine_tuning/jobs/{job_id}/clone"
    assert held_meanwhile(live, slow, silent, "POST", path) == "model_unavailable"


def held_meanwhile(live: Live, slow: Live, silent: Silent, method: str, path: str) -> str:
    """Make a call that waits for the silent server, which holds no connection to the database
    meanwhile; the code of its answer."""

    def call() -> httpx.Response:
        with slow.http() as http:
            return http.request(method, path)

    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call)
        assert silent.asked.wait(30)
        assert not calling.done()
        held = waiting_in_a_transaction(live)
        silent.speak()
        code = str(calling.result(60).json()["error"]["code"])
    assert held == 0
    return code
