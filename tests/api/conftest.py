"""A live API on a loopback port, with real PostgreSQL, Valkey and storage; no worker behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI, OpenAI

from api.app import create_app
from core.doorbell import Doorbell
from core.settings import Settings
from core.storage import ObjectStore
from models import keys
from models.db import Engine, sync_engine, transaction
from tests.receiver import Receiver, receiving
from worker.context import Context as WorkerContext
from worker.webhooks import Deliveries

CSV = b"text,label\ngood,positive\nbad,negative\n"


@dataclass
class Live:
    url: str
    settings: Settings
    engine: Engine
    store: ObjectStore
    key: str
    project_id: str
    stranger_key: str
    """Of another project."""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def http(self, key: str | None = None, **options: object) -> httpx.Client:
        """A plain client; with `key=""`, one without a key."""
        chosen = self.key if key is None else key
        headers = {"Authorization": f"Bearer {chosen}"} if chosen else {}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=30, **options)  # type: ignore[arg-type]

    def openai(self, key: str | None = None) -> OpenAI:
        return OpenAI(base_url=self.base_url, api_key=key or self.key, max_retries=0)

    def async_openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.base_url, api_key=self.key, max_retries=0)

    def make_key(self, project: str, **values: object) -> tuple[str, str]:
        """A fresh key's project id and text."""
        with transaction(self.engine) as session:
            row, text = keys.create(
                session,
                self.settings.signing_secret(),
                project=project,
                name="test",
                **values,  # type: ignore[arg-type]
            )
            return row.project_id, text

    def upload(self, content: bytes = CSV, purpose: str = "fine-tune", key: str = "") -> str:
        with self.http(key or self.key) as http:
            answer = http.post(
                "/files", data={"purpose": purpose}, files={"file": ("train.csv", content)}
            )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The API on these settings, served by a real uvicorn in a thread; its URL."""
    config = uvicorn.Config(create_app(settings), port=0, log_config=None, server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def settings_for(data_dir: Path, database_url: str, redis_url: str, **more: object) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url=database_url,
        redis_url=redis_url,
        hub=False,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def live(
    postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    settings = settings_for(
        tmp_path_factory.mktemp("api"),
        postgres_url,
        redis_url,
        max_body_bytes=64 * 1024,
        max_upload_bytes=3 * 1024 * 1024,
        estimate_wait_seconds=0.5,
        webhook_test_seconds=0.5,
    )
    engine = sync_engine(postgres_url)
    store = ObjectStore.from_settings(settings)
    with running(settings) as url:
        made = Live(url, settings, engine, store, "", "", "")
        made.project_id, made.key = made.make_key("default")
        _, made.stranger_key = made.make_key("strangers")
        yield made
    engine.dispose()


RETRIES = [0.1, 0.1, 0.1]


@pytest.fixture(scope="module")
def hooked(live: Live) -> Iterator[Live]:
    """The API with this machine's own addresses opened to webhooks, and short waits for them."""
    settings = settings_for(
        live.settings.data_dir,
        str(live.settings.database_url),
        str(live.settings.redis_url),
        outgoing_allow=["127.0.0.0/8"],
        webhook_retry_seconds=RETRIES,
        webhook_timeout_seconds=1,
    )
    with running(settings) as url:
        yield Live(**(vars(live) | {"url": url, "settings": settings}))


def control_context(live: Live) -> WorkerContext:
    return WorkerContext(live.settings, live.engine, live.store, Doorbell(live.settings))


@pytest.fixture
def sending(hooked: Live) -> Iterator[Deliveries]:
    """What a control worker runs."""
    deliveries = Deliveries(control_context(hooked))
    deliveries.start()
    yield deliveries
    deliveries.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def no_endpoints_left(hooked: Live) -> Iterator[None]:
    yield
    with hooked.http() as http:
        for webhook in http.get("/webhook_endpoints").json()["data"]:
            http.delete(f"/webhook_endpoints/{webhook['id']}")
