"""Time in processes. Leases go by the database's clock instead (see models/leases.py)."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The present, timezone-aware, UTC."""
    return datetime.now(UTC)


def unix(moment: datetime) -> int:
    """Whole seconds since the epoch, as OpenAI's objects carry time."""
    return int(moment.timestamp())
