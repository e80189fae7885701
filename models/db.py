"""Engines and transactions. The API opens its sessions here asynchronously, the worker plainly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from core.errors import Unavailable

__all__ = ["AsyncEngine", "Engine", "Session"]  # for rooms that must not know SQL

P = ParamSpec("P")
T = TypeVar("T")

Disconnected = (OperationalError, InterfaceError)
"""What a lost or restarting PostgreSQL raises; repeating the transaction is safe."""


def _arguments(url: str, lock_timeout_ms: int) -> dict[str, Any]:
    return {
        "url": make_url(url).set(drivername="postgresql+psycopg"),
        "pool_pre_ping": True,
        # Errors are logged, and what a statement was given holds rows of data and hashes of keys.
        "hide_parameters": True,
        "connect_args": {
            "connect_timeout": 5,
            # A server that vanished without a word is noticed well within a lease.
            "keepalives_idle": 5,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            "options": f"-c lock_timeout={lock_timeout_ms} -c timezone=UTC"
            " -c idle_in_transaction_session_timeout=60000",
        },
    }


def sync_engine(url: str, *, pool_size: int = 4) -> Engine:
    return create_engine(pool_size=pool_size, **_arguments(url, 20_000))


def async_engine(url: str, *, pool_size: int = 10) -> AsyncEngine:
    return create_async_engine(
        pool_size=pool_size, max_overflow=20, pool_timeout=10, **_arguments(url, 10_000)
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One short transaction: committed at the end of the block, rolled back on an error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


class Database:
    """A request's transaction. Call it with a function of `models/` and its arguments."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def __call__(
        self, query: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._session.run_sync(lambda session: query(session, *args, **kwargs))


@asynccontextmanager
async def async_transaction(engine: AsyncEngine) -> AsyncIterator[Database]:
    """One request's transaction, committed when the block ends without an error.

    Raises Unavailable when PostgreSQL cannot be reached, or no connection to it comes free.
    """
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            yield Database(session)
    except (*Disconnected, PoolTimeout) as error:
        raise Unavailable(
            "The database cannot be reached at this moment. Repeat the call in a few seconds."
        ) from error


def ping(session: Session) -> None:
    """Raise when the database does not answer or its schema was never migrated."""
    session.execute(text("SELECT version_num FROM alembic_version"))
