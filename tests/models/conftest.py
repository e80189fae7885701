from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.db import Engine, sync_engine


@pytest.fixture(scope="module")
def engine(postgres_url: str) -> Iterator[Engine]:
    made = sync_engine(postgres_url, pool_size=8)
    yield made
    made.dispose()
