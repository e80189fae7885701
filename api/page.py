"""The web page: static files that need no key, since they hold nothing of anybody's.

The page itself asks its user for a key and calls the public API with it. It is built from `ui/`
into `api/static`, which the wheel brings along; a checkout builds it with `make page`.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from core.errors import NotFound

STATIC = Path(__file__).parent / "static"

HEADERS = {
    # Scripts, styles and calls of this server alone; nothing inline, nothing framed. `blob:` is
    # for pictures that the user chose to try a model on.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

router = APIRouter()


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def page() -> Response:
    """The page. It names its assets by their hashes, so it is looked at again each time."""
    index = STATIC / "index.html"
    if not index.is_file():
        raise NotFound(
            "The web page is not built: run `make page` in the checkout, then reload. "
            "The API at /v1 works without it.",
            code="page_not_built",
        )
    return FileResponse(index, headers={**HEADERS, "Cache-Control": "no-cache"})


class Assets(StaticFiles):
    """Files whose names hold the hash of their content: they never change."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC / "assets", check_dir=False)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update({**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"})
        return response
