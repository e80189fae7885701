"""One base for every error a user can meet.

The API renders these as OpenAI's error object joined with RFC 9457's members; the worker writes
them on the job. So each carries a stable `code`, the HTTP `status`, the `param` at fault and, in
`message`, what to do next.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Of an OSError: the machine's disk takes no more."""


class LuthierError(Exception):
    """An error with a stable code and a message for the person who caused it or must mend it."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    """OpenAI's `error.type`."""
    retry: ClassVar[bool | None] = None
    """What `x-should-retry` says to the OpenAI client; None leaves it to the status."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.hint = hint
        self.error_code = code or self.code
        self.details = details or []

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def as_job_error(self) -> dict[str, Any]:
        """The shape of `job.error`: code, message, param."""
        return {"code": self.error_code, "message": str(self), "param": self.param}


class InvalidRequest(LuthierError):
    code, status, kind = "invalid_request", 400, "invalid_request_error"


class Unprocessable(LuthierError):
    code, status, kind = "invalid_value", 422, "invalid_request_error"


class NotAuthenticated(LuthierError):
    code, status, kind = "invalid_api_key", 401, "authentication_error"


class NotPermitted(LuthierError):
    code, status, kind = "insufficient_scope", 403, "permission_error"


class NotFound(LuthierError):
    code, status, kind = "not_found", 404, "invalid_request_error"


class Conflict(LuthierError):
    """The thing is in a state that forbids this. Repeating the call would not help."""

    code, status, kind = "conflict", 409, "invalid_request_error"
    retry = False


class TooLarge(LuthierError):
    code, status, kind = "too_large", 413, "invalid_request_error"


class RangeNotSatisfiable(LuthierError):
    code, status, kind = "range_not_satisfiable", 416, "invalid_request_error"


class Unavailable(LuthierError):
    """A part of the service (database, storage) cannot be reached now; repeating may help."""

    code, status, kind = "unavailable", 503, "server_error"


class BadData(LuthierError):
    """A user's data file cannot be used. `details` holds the rows, each with its place."""

    code, status, kind = "bad_data", 400, "invalid_request_error"
