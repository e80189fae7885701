"""Reconcilers: small loops that bring the world back to what the database says.

Each is a module with `NAME`, `every(settings)` in seconds and `reconcile(context)`. Each is safe
to run twice, at the same time, and to be killed at any point. A new one is one file and its name
in `ALL`.
"""

from __future__ import annotations

from typing import Protocol

from core.settings import Settings
from worker.context import Context
from worker.reconcilers import clean, orphans, reap, ring, spent_parts


class Reconciler(Protocol):
    NAME: str

    def every(self, settings: Settings) -> float: ...

    def reconcile(self, context: Context) -> None: ...


ALL: tuple[Reconciler, ...] = (reap, ring, clean, orphans, spent_parts)
