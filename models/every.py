"""Imports every table, so that the metadata is whole wherever all of it is needed."""

from models import (
    attempts,
    checkpoints,
    events,
    files,
    idempotency,
    jobs,
    keys,
    metrics,
    past_runs,
    projects,
    registry,
    uploads,
    validations,
    webhook_deliveries,
    webhooks,
    workers,
)

__all__ = [
    "attempts",
    "checkpoints",
    "events",
    "files",
    "idempotency",
    "jobs",
    "keys",
    "metrics",
    "past_runs",
    "projects",
    "registry",
    "uploads",
    "validations",
    "webhook_deliveries",
    "webhooks",
    "workers",
]
