"""Every error in one body: OpenAI's `error` object, and the members of RFC 9457 beside it.

The framework's own errors are turned into the same shape here, so that a caller never meets
another one.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.invalid import explain_parameters
from api.request_id import request_id
from core.errors import LuthierError, NotFound, Unavailable
from core.storage import StorageUnavailable

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger(__name__)


class MethodNotAllowed(LuthierError):
    """The route exists, but not for this method."""

    code, status, kind = "method_not_allowed", 405, "invalid_request_error"


class ErrorObject(BaseModel):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str | None


class Problem(BaseModel):
    """An error. `error` is OpenAI's, the other members are those of RFC 9457."""

    error: ErrorObject
    type: str
    """`urn:luthier:error:` and the code."""
    title: str
    status: int
    detail: str
    instance: str
    """`urn:luthier:request:` and the request's id, which the server's log holds too."""
    details: list[dict[str, Any]] | None = Field(
        None, description="Where there are several problems: each with its place."
    )


def errors(*kinds: type[LuthierError]) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` in OpenAPI for the errors that it can raise."""
    return {
        kind.status: {"model": Problem, "description": HTTPStatus(kind.status).phrase}
        for kind in kinds
    }


def render(
    error: LuthierError, request: Request, headers: dict[str, str] | None = None
) -> Response:
    """The answer for an error. What only an administrator can mend is logged, not shown."""
    this = request_id(request.scope)
    if error.status >= 500:
        told = {"request_id": this}
        log.error("%s: %s", error.error_code, error, exc_info=error, extra=told)
        error = _without_internals(error)
    message = str(error)
    body = Problem(
        error=ErrorObject(
            message=message, type=error.kind, param=error.param, code=error.error_code
        ),
        type=f"urn:luthier:error:{error.error_code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=message,
        instance=f"urn:luthier:request:{this}",
        details=error.details or None,
    )
    headers = dict(headers or {})
    if error.retry is not None:
        headers["x-should-retry"] = json.dumps(error.retry)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="luthier"'
    return Response(
        body.model_dump_json(exclude={"details"} if body.details is None else None),
        status_code=error.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def _without_internals(error: LuthierError) -> LuthierError:
    if isinstance(error, StorageUnavailable):
        return Unavailable(
            "The object storage cannot be reached at this moment. "
            "Repeat the call in a few seconds.",
            code=error.error_code,
        )
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return LuthierError(
            "The server failed on this call. Repeat it; if it fails again, give the "
            "x-request-id of this answer to the administrator, whose log says more.",
            code=error.error_code,
        )
    return error


def install(app: FastAPI) -> None:
    """Answer every error that a route, or the framework itself, raises."""
    app.add_exception_handler(LuthierError, _ours)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, _frameworks)


async def _ours(request: Request, error: Exception) -> Response:
    return render(cast(LuthierError, error), request)


async def failed(request: Request, error: Exception) -> Response:
    """The answer to an exception that nothing foresaw; the log has the traceback."""
    unforeseen = LuthierError("Unforeseen.")
    unforeseen.__cause__ = error
    return render(unforeseen, request)


async def _parameters(request: Request, error: Exception) -> Response:
    problems = cast(RequestValidationError, error).errors()
    return render(explain_parameters(problems), request)


async def _frameworks(request: Request, error: Exception) -> Response:
    raised = cast(HTTPException, error)
    headers = dict(raised.headers or {})
    where = f"{request.method} {request.scope['path']}"
    if raised.status_code == HTTPStatus.NOT_FOUND:
        return render(
            NotFound(f"There is no {where}. /openapi.json lists what is.", code="unknown_url"),
            request,
            headers,
        )
    if raised.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return render(
            MethodNotAllowed(f"{where} is not allowed. /openapi.json lists every path's methods."),
            request,
            headers,
        )
    # Nothing of ours raises it, so it is a failure like any other.
    raise error
