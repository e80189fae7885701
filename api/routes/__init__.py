"""Routes by thing. What lies below `/v1` asks for a key, because the router that holds it does."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from api.auth import authenticate
from api.errors import errors
from api.paging import refuse_nul
from api.routes import (
    comparison,
    estimates,
    files,
    health,
    job_records,
    jobs,
    metrics,
    models,
    predictions,
    tasks,
    uploads,
    validations,
    webhooks,
)
from core.errors import InvalidRequest, LuthierError, NotAuthenticated, NotPermitted, Unavailable

public = APIRouter(responses=errors(LuthierError))
public.include_router(health.router)
public.include_router(metrics.router)

keyed = APIRouter(
    prefix="/v1",
    dependencies=[Depends(authenticate), Depends(refuse_nul)],
    responses=errors(InvalidRequest, NotAuthenticated, NotPermitted, LuthierError, Unavailable),
)
for part in (
    files,
    uploads,
    validations,
    estimates,
    jobs,
    job_records,
    comparison,
    models,
    predictions,
    tasks,
    webhooks,
):
    keyed.include_router(part.router)
