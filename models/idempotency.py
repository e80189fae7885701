"""One answer for one call, however often it is repeated.

A call is known by its `Idempotency-Key`, or, where the OpenAI client repeats a POST by itself
(`x-stainless-retry-count` above 0, no key), by its caller and body. The record is written in the
transaction that does the work, so either both exist or neither.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

from sqlalchemy import ForeignKey, Index, delete, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from core.errors import Unprocessable
from models import locks
from models.base import Base, Created

REMEMBERED = timedelta(hours=24)
RETRY_WINDOW = timedelta(minutes=30)
"""How long a client's own retries may take: its default time-out is 10 minutes, twice repeated."""


class Call(Created, Base):
    __tablename__ = "idempotent_calls"
    __table_args__ = (
        Index(
            "uq_idempotent_calls_project_id_key",
            "project_id",
            "key",
            unique=True,
            postgresql_where=text("key IS NOT NULL"),
        ),
        Index("ix_idempotent_calls_project_id_fingerprint", "project_id", "fingerprint"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: ids.new("call-"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key: Mapped[str | None]
    fingerprint: Mapped[str]
    """SHA-256 over caller, route and body."""
    result_id: Mapped[str]
    """The id of what the call made; its present state is the answer to a replay."""


def fingerprint(caller: str, route: str, body: bytes) -> str:
    digest = hashlib.sha256()
    for part in (caller.encode(), route.encode(), body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def recall(
    session: Session, project_id: str, *, key: str | None, fingerprint: str, is_retry: bool
) -> str | None:
    """The id that an equal earlier call made, or None if this is the first.

    Equal calls wait for each other here until the transaction ends. Raises Unprocessable when the
    key was used with another body.
    """
    locks.hold(session, project_id, key or fingerprint)
    if key is None and not is_retry:
        return None
    statement = select(Call).where(Call.project_id == project_id)
    if key is not None:
        statement = statement.where(Call.key == key)
    else:
        statement = statement.where(
            Call.key.is_(None),
            Call.fingerprint == fingerprint,
            Call.created_at > func.now() - RETRY_WINDOW,
        )
    found = session.scalar(statement.order_by(Call.id.desc()).limit(1))
    if found is None:
        return None
    if found.fingerprint != fingerprint:
        raise Unprocessable(
            f"Idempotency-Key {key!r} was used before with another request. "
            "Use a new key for a new request.",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    return found.result_id


def remember(
    session: Session, project_id: str, *, key: str | None, fingerprint: str, result_id: str
) -> None:
    session.add(Call(project_id=project_id, key=key, fingerprint=fingerprint, result_id=result_id))
    session.flush()


def forget(session: Session) -> None:
    """Drop records older than `REMEMBERED`; cleaning calls this."""
    session.execute(delete(Call).where(Call.created_at < func.now() - REMEMBERED))
