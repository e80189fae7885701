"""What a worker process has at hand: settings, database, storage, doorbell, its own id."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from core import ids
from core.doorbell import Doorbell
from core.settings import Settings
from core.storage import ObjectStore
from core.telemetry import Tracing
from models.db import Engine, Session, sync_engine, transaction

GRACE_SHARE = 0.75
"""Of a worker's grace. After that nothing is waited for: the rest is for the way out."""


class Stopping(threading.Event):
    """Set on SIGTERM: end the step under way, hand the job back, exit."""

    since = math.inf
    """When it was set, by the monotonic clock."""

    def set(self) -> None:
        self.since = min(self.since, time.monotonic())
        super().set()


@dataclass(frozen=True)
class Context:
    settings: Settings
    engine: Engine
    store: ObjectStore
    doorbell: Doorbell
    stopping: Stopping = field(default_factory=Stopping)
    worker_id: str = field(default_factory=ids.worker)
    tracing: Tracing = field(default_factory=Tracing)

    @classmethod
    def open(cls, settings: Settings) -> Context:
        return cls(
            settings,
            sync_engine(settings.require_database_url()),
            ObjectStore.from_settings(settings),
            Doorbell(settings),
        )

    @property
    def leaves_at(self) -> float:
        """When, by the monotonic clock, nothing is waited for any more: never, unless this process
        is to end."""
        return self.stopping.since + GRACE_SHARE * self.settings.grace_seconds

    @property
    def transaction(self) -> Callable[[], AbstractContextManager[Session]]:
        """Opens one short transaction."""
        return partial(transaction, self.engine)

    def scratch(self, *parts: str) -> Path:
        """A folder below this machine's working space, made if need be."""
        folder = self.settings.data_dir.resolve() / "worker" / Path(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
