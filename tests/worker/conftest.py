"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from core.doorbell import Doorbell
from core.settings import Settings
from core.storage import ObjectStore
from models.db import sync_engine
from worker.context import Context


@pytest.fixture(scope="module")
def context_with(
    postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Context]]:
    """Makes a worker's context with a data folder of its own, and these settings."""
    made: list[Context] = []

    def make(**chosen: Any) -> Context:
        settings = Settings(
            data_dir=tmp_path_factory.mktemp("worker"),
            database_url=postgres_url,
            redis_url=redis_url,
            **chosen,
        )
        engine, store = sync_engine(postgres_url), ObjectStore.from_settings(settings)
        made.append(Context(settings, engine, store, Doorbell(settings)))
        return made[-1]

    yield make
    for one in made:
        one.engine.dispose()
