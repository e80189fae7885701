"""Two servers that are started at once both migrate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from migrations import upgrade
from models.db import _arguments

MIGRATION_LOCK = 5_884_267_301
LOCK_TIMEOUT_MS = 200


def test_the_second_waits_for_the_first(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than a statement waits for a lock."""

    def impatient(url: str) -> Engine:
        return create_engine(**_arguments(url, LOCK_TIMEOUT_MS))

    monkeypatch.setattr("models.db.sync_engine", impatient)
    with psycopg.connect(postgres_url, autocommit=True) as first, ThreadPoolExecutor(1) as pool:
        first.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        second = pool.submit(upgrade, postgres_url)
        with pytest.raises(TimeoutError):
            second.result(10 * LOCK_TIMEOUT_MS / 1000)
        first.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
        second.result(30)
