"""Locks on words rather than rows, for what has no row yet."""

from __future__ import annotations

import hashlib

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def hold(session: Session, *words: str) -> None:
    """Hold an advisory lock on these words until the transaction ends."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    number = int.from_bytes(digest[:8], "big", signed=True)
    session.execute(select(func.pg_advisory_xact_lock(number)))
