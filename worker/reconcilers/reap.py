"""Takes jobs back from workers that have not been heard from for a lease's length."""

from __future__ import annotations

import logging

from core.settings import Settings
from models import leases
from worker.context import Context
from worker.reconcilers import ring

NAME = "reap"

log = logging.getLogger(__name__)


def every(settings: Settings) -> float:
    return settings.reconcile_seconds


def reconcile(context: Context) -> None:
    with context.transaction() as session:
        reaped = leases.reap(session, context.settings.max_failures)
    for job_id in reaped:
        log.warning("lease expired, job taken back", extra={"job_id": job_id})
    if reaped:
        # A worker that waits takes it up now, not at the next sweep.
        ring.reconcile(context)
