"""The ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api import errors, openapi, page
from api.context import Context
from api.metrics import HttpMetrics
from api.request_id import RequestIds
from api.routes import keyed, public
from api.stream import Feeds
from core.doorbell import Doorbell
from core.settings import Settings, get_settings
from core.storage import ObjectStore
from core.telemetry import Tracing
from models.db import async_engine


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application on these settings, or on the process's own. Connects only once it starts."""
    chosen = settings or get_settings()
    metrics = HttpMetrics()
    tracing = Tracing.open(chosen, "api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context = Context(
            settings=chosen,
            engine=async_engine(chosen.require_database_url()),
            store=ObjectStore.from_settings(chosen),
            doorbell=Doorbell(chosen),
            secret=chosen.signing_secret(),
            tracing=tracing,
        )
        chosen.scrape_token()  # Made now, so that it is there for whoever sets Prometheus up.
        app.state.context = context
        app.state.metrics = metrics
        app.state.feeds = Feeds(context)
        try:
            yield
        finally:
            await app.state.feeds.stop()
            context.doorbell.close()
            await context.engine.dispose()
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="Luthier",
        version=version("luthier-server"),
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(public)
    app.include_router(keyed)
    app.include_router(page.router)
    app.mount("/assets", page.Assets())
    errors.install(app)
    app.add_middleware(RequestIds, failed=errors.failed, observe=metrics.observe, tracing=tracing)
    openapi.install(app)
    return app
