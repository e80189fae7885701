"""Removes bytes that a cut-off upload, a lost attempt or a killed process left behind."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import islice

from core.settings import Settings
from models import orphans
from worker.context import Context

NAME = "orphans"
BATCH = 100
RUNS_AN_AGE = 24

log = logging.getLogger(__name__)


def every(settings: Settings) -> float:
    return settings.orphan_seconds / RUNS_AN_AGE


def reconcile(context: Context) -> None:
    """Whether something is referred to is asked again right before it is removed."""
    with context.transaction() as session:
        before = orphans.now(session) - timedelta(seconds=context.settings.orphan_seconds)
    for prefix in orphans.PREFIXES:
        entries = context.store.entries(prefix)
        old = (entry.key for entry in entries if entry.modified < before)
        while keys := list(islice(old, BATCH)):
            if context.stopping.is_set():
                return
            with context.transaction() as session:
                doomed = orphans.among(session, keys)
                context.store.delete(*doomed)
            if doomed:
                log.info("removed %d orphaned objects below %s", len(doomed), prefix)
    swept = context.store.sweep(before)
    if swept:
        log.info("removed %d half-written objects", swept)
