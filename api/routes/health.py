"""Whether the process lives, and whether it can work. These need no key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter
from kombu.exceptions import OperationalError
from pydantic import BaseModel

from api.context import Here
from api.errors import errors
from core.doorbell import CONTROL_QUEUE
from core.errors import LuthierError, Unavailable
from models.db import ping

PATIENCE_SECONDS = 5.0

router = APIRouter(tags=["Health"])

log = logging.getLogger(__name__)


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"
    database: Literal["ok"] = "ok"
    storage: Literal["ok"] = "ok"
    broker: Literal["ok", "unreachable"]
    """Not needed to be ready: it carries doorbells, and the queue is in the database."""


@router.get("/healthz")
async def healthz() -> Alive:
    """The process lives."""
    return Alive()


@router.get("/readyz", responses=errors(Unavailable))
async def readyz(here: Here) -> Ready:
    """Database and storage answer."""
    database, storage, broker = await asyncio.gather(
        _answers(_ping(here)),
        _answers(asyncio.to_thread(here.store.check)),
        _answers(asyncio.to_thread(here.doorbell.pending, CONTROL_QUEUE)),
    )
    failed = [name for name, ok in (("database", database), ("storage", storage)) if not ok]
    if failed:
        raise Unavailable(f"Not ready: the {' and the '.join(failed)} cannot be reached.")
    return Ready(broker="ok" if broker else "unreachable")


async def _ping(here: Here) -> None:
    async with here.transaction() as db:
        await db(ping)


async def _answers(check: Awaitable[object]) -> bool:
    try:
        await asyncio.wait_for(check, PATIENCE_SECONDS)
    except (LuthierError, OperationalError, OSError, TimeoutError) as error:
        log.warning("not ready: %s", error)
        return False
    return True
