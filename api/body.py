"""JSON bodies: read with a limit, parsed strictly, checked against a model.

This is a dependency rather than FastAPI's own body parameter for two reasons: FastAPI reads the
body before it asks who calls, and it reads all of it, whatever its length.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from api.context import Here
from api.invalid import explain_body
from core.errors import InvalidRequest, TooLarge

M = TypeVar("M", bound=BaseModel)

SCHEMA_REFERENCE = "#/components/schemas/{model}"


class JsonBody(Generic[M]):
    """Gives a request's body as a `model`. Raises InvalidRequest or TooLarge."""

    def __init__(self, model: type[M], *, may_be_empty: bool = False) -> None:
        """`may_be_empty`: whether no body at all stands for an empty object."""
        self._model = model
        self._may_be_empty = may_be_empty
        self._schema = model.model_json_schema()

    async def __call__(self, request: Request, here: Here) -> M:
        body = await _read(request, here.settings.max_body_bytes)
        return self.checked({} if self._may_be_empty and not body else parse(body))

    def checked(self, value: Any) -> M:
        """The same for a value that was parsed already. Raises InvalidRequest."""
        try:
            return self._model.model_validate(value, strict=True)
        except ValidationError as error:
            raise explain_body(error.errors(), self._schema) from error

    def in_openapi(self) -> dict[str, Any]:
        """A route's `openapi_extra`; `api/openapi.py` moves `$defs` to where references look."""
        schema = self._model.model_json_schema(ref_template=SCHEMA_REFERENCE)
        return {
            "requestBody": {
                "required": not self._may_be_empty,
                "content": {"application/json": {"schema": schema}},
            }
        }


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"The body is larger than the limit of {limit} bytes.")
    return bytes(body)


def parse(body: bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, bounded nesting, no NUL. Raises InvalidRequest."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(
            f"The body is not valid JSON: {error}. Send a JSON object.", code="invalid_json"
        ) from error
    if b"\\u0000" in body and _holds_nul(value):
        raise InvalidRequest(
            "A text in the body holds a NUL character (\\u0000). Take it out.", code="invalid_json"
        )
    return value


def _holds_nul(value: Any) -> bool:
    """The parser bounds the depth, so the recursion is bounded too."""
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(_holds_nul(part) for part in value)
    return isinstance(value, str) and "\0" in value
