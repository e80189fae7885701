"""Around every request: its id, its line in the log, and the answer when the server itself fails.

The id is ours alone: one sent by a client is not taken over, so that it cannot be forged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import cast

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import ids

HEADER = "x-request-id"

Failed = Callable[[Request, Exception], Awaitable[Response]]

log = logging.getLogger(__name__)


def request_id(scope: Scope) -> str:
    return cast(str, scope["state"][HEADER])


class RequestIds:
    """ASGI middleware. `failed` makes the answer to an exception that nothing else handled."""

    def __init__(self, app: ASGIApp, failed: Failed) -> None:
        self._app = app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        this = ids.request()
        scope.setdefault("state", {})[HEADER] = this

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = this
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except ClientDisconnect:
            log.info("the client left", extra={"request_id": this})
        except Exception as error:
            if status:
                # The answer is under way: only breaking it off tells the client.
                raise
            answer = await self._failed(Request(scope), error)
            await answer(scope, receive, with_id)
        finally:
            log.info(
                "%s %s %s %.0f ms",
                scope["method"],
                scope["path"],
                status or "no answer",
                (time.monotonic() - began) * 1000,
                extra={"request_id": this},
            )
