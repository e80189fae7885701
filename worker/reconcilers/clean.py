"""Removes what nothing needs any more: bytes of deleted files and models, old records, and what a
killed validation left on this machine."""

from __future__ import annotations

import logging
from datetime import timedelta

from core.settings import Settings
from models import idempotency, predictions, removal, validations, webhook_deliveries
from worker import base_models
from worker.context import Context
from worker.scratch import remove_strays

NAME = "clean"

log = logging.getLogger(__name__)


def every(settings: Settings) -> float:
    return settings.clean_seconds


def reconcile(context: Context) -> None:
    """Bytes go first, then the note that they are gone: a kill between them repeats the first.

    Files' may be shared with an upload that comes at this moment, so there the note goes first,
    and what a kill leaves behind is an orphan. A shutdown is a kill in good time.
    """
    with context.transaction() as session:
        idempotency.forget(session)
        predictions.forget(session)
        validations.forget(session)
        logged = timedelta(seconds=context.settings.webhook_log_seconds)
        webhook_deliveries.forget(session, logged)
        doomed = removal.due(session)
        gone = removal.files_due(session)
    for file_id in gone:
        if context.stopping.is_set():
            return
        with context.transaction() as session:
            key = removal.release_bytes(session, file_id)
        if key is not None:
            context.store.delete(key)
            log.info("removed the bytes of %s", file_id)
    for item in doomed:
        if context.stopping.is_set():
            return
        context.store.delete(*item.keys)
        with context.transaction() as session:
            removal.done(session, item)
        log.info("removed %d stored objects of %s", len(item.keys), item.row_id)
    remove_strays(context)
    base_models.make_room(context)
