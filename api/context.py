"""What every request has at hand, and the one place where its transaction is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from core.doorbell import Doorbell
from core.settings import Settings
from core.storage import ObjectStore
from core.telemetry import Tracing
from models.db import AsyncEngine, Database, async_transaction


@dataclass(frozen=True)
class Context:
    settings: Settings
    engine: AsyncEngine
    store: ObjectStore
    doorbell: Doorbell
    """To be rung in a background task alone: after the commit and the answer, which must never
    wait for a broker that is frozen."""
    secret: bytes
    """Keys the hashes of API keys."""
    tracing: Tracing

    def transaction(self) -> AbstractAsyncContextManager[Database]:
        return async_transaction(self.engine)


async def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


Here = Annotated[Context, Depends(_context)]


async def _transaction(here: Here) -> AsyncIterator[Database]:
    async with here.transaction() as db:
        yield db


Transaction = Annotated[Database, Depends(_transaction, scope="function")]
"""The request's transaction. It takes a connection at its first query, and is committed when the
route function has returned, before the first byte of the answer leaves."""
