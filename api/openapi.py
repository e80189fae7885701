"""The OpenAPI document, which is committed as `openapi.json`: `python -m api.openapi` prints it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI

from api.errors import MEDIA_TYPE

DESCRIPTION = (
    "Self-hosted fine-tuning with OpenAI's fine-tuning API. Every error is a `Problem`; every "
    "answer carries `x-request-id`."
)

Document = dict[str, Any]
FRAMEWORKS_ERRORS = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI) -> None:
    """Make the application's document say what the routes really answer."""
    generate: Callable[[], Document] = app.openapi

    def document() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(document: Document) -> Document:
    schemas = document["components"]["schemas"]
    for name in FRAMEWORKS_ERRORS:
        schemas.pop(name, None)
    for operation in _operations(document):
        for status, response in list(operation["responses"].items()):
            if status == "422" and "HTTPValidationError" in json.dumps(response):
                del operation["responses"][status]  # ours are 400s
            elif int(status) >= 400:
                (body,) = response["content"].values()
                response["content"] = {MEDIA_TYPE: body}
            response["headers"] = {"x-request-id": {"schema": {"type": "string"}}}
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schemas |= content["schema"].pop("$defs", {})
    return document


def _operations(document: Document) -> Iterator[Document]:
    for path in document["paths"].values():
        yield from path.values()


if __name__ == "__main__":
    from api.app import create_app
    from core.settings import Settings

    json.dump(create_app(Settings()).openapi(), sys.stdout, indent=1, ensure_ascii=False)
    print()
