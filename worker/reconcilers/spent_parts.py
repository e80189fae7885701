"""Expires uploads that were never completed, and removes the parts of those that ended."""

from __future__ import annotations

from core.settings import Settings
from models import uploads
from worker.context import Context

NAME = "spent_parts"


def every(settings: Settings) -> float:
    return settings.clean_seconds


def reconcile(context: Context) -> None:
    """Bytes go before the row that names them: a kill in between repeats the first."""
    with context.transaction() as session:
        uploads.expire(session)
        spent = uploads.spent_parts(session)
    for part in spent:
        if context.stopping.is_set():
            return
        context.store.delete(part.storage_key)
        with context.transaction() as session:
            uploads.forget_part(session, part.id)
