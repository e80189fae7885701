"""Takes jobs back from workers that have not been heard from for a lease's length."""

from __future__ import annotations

import logging

from core.settings import Settings
from models import leases
from worker.context import Context

NAME = "reap"

log = logging.getLogger(__name__)


def every(settings: Settings) -> float:
    return settings.reconcile_seconds


def reconcile(context: Context) -> None:
    with context.transaction() as session:
        for job_id in leases.reap(session, context.settings.max_failures):
            log.warning("lease expired, job taken back", extra={"job_id": job_id})
