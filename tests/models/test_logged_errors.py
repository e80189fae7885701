"""What an error of the database says goes to a log, so it says nothing of what was written."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from core.errors import Unavailable
from models.db import Disconnected, Engine, Session, async_engine, async_transaction, transaction

ROW = "a row of somebody's data"


def slowly(session: Session) -> None:
    session.execute(text("SET LOCAL statement_timeout = '20ms'"))
    session.execute(text("SELECT pg_sleep(5), CAST(:row AS text)"), {"row": ROW})


def test_a_workers(engine: Engine) -> None:
    with pytest.raises(Disconnected) as caught, transaction(engine) as session:
        slowly(session)
    assert "pg_sleep" in str(caught.value)
    assert ROW not in str(caught.value)


def test_the_apis(postgres_url: str) -> None:
    async def ask() -> None:
        engine = async_engine(postgres_url)
        try:
            async with async_transaction(engine) as db:
                await db(slowly)
        finally:
            await engine.dispose()

    with pytest.raises(Unavailable) as caught:
        asyncio.run(ask())
    assert "pg_sleep" in str(caught.value.__cause__)
    assert ROW not in str(caught.value.__cause__)
