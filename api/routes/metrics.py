"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.context import Here
from api.errors import errors
from core.errors import NotAuthenticated, Unavailable
from models import fleet

router = APIRouter(tags=["Health"])

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="metrics_token",
    description="LUTHIER_METRICS_TOKEN, or what the API wrote to `DATA_DIR/metrics_token`.",
)


@router.get(
    "/metrics",
    response_class=Response,
    responses=errors(NotAuthenticated)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def prometheus_metrics(
    request: Request,
    here: Here,
    token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Response:
    """This process's requests, and the whole fleet's jobs, workers and webhooks.

    They are of all projects, so no project's API key opens them: the token is the operator's.
    """
    if token is None or not token.credentials:
        raise NotAuthenticated(
            "These are the operator's. Send `Authorization: Bearer TOKEN` with "
            "LUTHIER_METRICS_TOKEN, or with what stands in DATA_DIR/metrics_token.",
            code="missing_api_key",
        )
    if not secrets.compare_digest(token.credentials.encode(), here.settings.scrape_token()):
        raise NotAuthenticated(
            "This is not the operator's token. It is LUTHIER_METRICS_TOKEN, or what stands in "
            "DATA_DIR/metrics_token; API keys do not open this."
        )
    try:
        async with here.transaction() as db:
            found = await db(fleet.snapshot)
    except Unavailable:
        found = None  # told as `luthier_database_up 0`, beside what this process knows itself
    return Response(
        request.app.state.metrics.exposition(found), media_type=CONTENT_TYPE_PLAIN_0_0_4
    )
