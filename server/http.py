"""The API behind uvicorn."""

from __future__ import annotations

from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.stream import Feeds
from core.settings import Settings

GRACE_SECONDS = 10
"""What answers under way may take once the process is asked to end."""


class Server(uvicorn.Server):
    """Ends the streams when it is asked to end: they have no last answer to be waited for."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        feeds: Feeds | None = getattr(self._app.state, "feeds", None)
        if feeds is not None:  # None while it still starts
            feeds.close()
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    settings.require_database_url()
    settings.require_redis_url()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Server(config, app).run()
