"""Around every request: its id, its line in the log, its place in the metrics, and the answer when
the server itself fails.

The id is ours alone: one sent by a client is not taken over, so that it cannot be forged. A request
is told by its route's template, not by its path: that may hold anything, and a query text of users.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import ids
from core.logging import bound
from core.telemetry import Tracing

HEADER = "x-request-id"
UNMATCHED = "unmatched"
"""The route of a path that leads nowhere."""

Failed = Callable[[Request, Exception], Awaitable[Response]]
Observe = Callable[[str, str, int, float], None]
"""Takes method, route, status (0 for no answer) and the seconds until the answer began."""

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")

log = logging.getLogger(__name__)


def request_id(scope: Scope) -> str:
    return cast(str, scope["state"][HEADER])


def route_of(scope: Scope) -> str:
    """The template of the route that took a request, such as `/v1/files/{file_id}`."""
    route = scope.get("route")
    if route is None:
        return str(scope.get("root_path")) or UNMATCHED  # of what is mounted: static files
    # A route's own path lacks the prefixes of the routers that it was included by.
    names = {name: f"{{{name}}}" for name in scope["path_params"]}
    return str(scope["app"].url_path_for(route.name, **names))


def _job_of(scope: Scope) -> str | None:
    named = str(scope.get("path_params", {}).get("job_id", ""))
    return named if _JOB_ID.fullmatch(named) else None


class RequestIds:
    """ASGI middleware. `failed` makes the answer to an exception that nothing else handled."""

    def __init__(self, app: ASGIApp, failed: Failed, observe: Observe, tracing: Tracing) -> None:
        self._app = app
        self._failed = failed
        self._observe = observe
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        this = ids.request()
        scope.setdefault("state", {})[HEADER] = this
        parent = Headers(scope=scope).get("traceparent")
        with (
            bound(request_id=this),
            self._tracing.span(scope["method"], parent=parent, request_id=this) as span,
        ):
            await self._told(scope, receive, send, this)
            if span is not None:
                span.update_name(f"{scope['method']} {route_of(scope)}")

    async def _told(self, scope: Scope, receive: Receive, send: Send, this: str) -> None:
        began, answered, status = time.monotonic(), None, 0

        async def with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.monotonic()
                MutableHeaders(scope=message)[HEADER] = this
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except ClientDisconnect:
            log.info("the client left")
        except Exception as error:
            if status:
                # The answer is under way: only breaking it off tells the client.
                raise
            answer = await self._failed(Request(scope), error)
            await answer(scope, receive, with_id)
        finally:
            ended, method, route = time.monotonic(), scope["method"], route_of(scope)
            self._observe(method, route, status, (answered or ended) - began)
            milliseconds = round((ended - began) * 1000)
            fields = {"method": method, "route": route, "status": status}
            log.info(
                "%s %s %s %d ms",
                method,
                route,
                status or "no answer",
                milliseconds,
                extra=fields | {"milliseconds": milliseconds, "job_id": _job_of(scope)},
            )
