"""API keys: shown once, stored as HMAC-SHA256, each belonging to one project."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ForeignKey, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from core.logging import KEY_PREFIX
from models import projects
from models.base import Base, Created

SCOPES = ("read", "write")
LAST_USE_RESOLUTION = timedelta(minutes=1)


class ApiKey(Created, Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True, default=ids.key)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    hint: Mapped[str]
    """The key's first characters, by which a person tells keys apart."""
    digest: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[Any]]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


def digest(secret: bytes, key: str) -> str:
    return hmac.new(secret, key.encode(), hashlib.sha256).hexdigest()


def create(
    session: Session,
    secret: bytes,
    *,
    project: str,
    name: str,
    scopes: tuple[str, ...] = SCOPES,
    lifetime: timedelta | None = None,
) -> tuple[ApiKey, str]:
    """Make a key for the named project (made if there is none). The text is never shown again."""
    text = KEY_PREFIX + secrets.token_hex(3) + secrets.token_urlsafe(32)
    row = ApiKey(
        project_id=projects.ensure(session, project).id,
        name=name,
        hint=text[:9],
        digest=digest(secret, text),
        scopes=list(scopes),
        expires_at=func.now() + lifetime if lifetime else None,
    )
    session.add(row)
    session.flush()
    return row, text


def authenticate(session: Session, secret: bytes, key: str) -> ApiKey | None:
    """The live key with this text, or None. Notes its use, at most once a minute."""
    row = session.scalar(
        select(ApiKey).where(
            ApiKey.digest == digest(secret, key),
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
        )
    )
    if row is not None:
        stale = func.now() - LAST_USE_RESOLUTION
        session.execute(
            update(ApiKey)
            .where(
                ApiKey.id == row.id,
                or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < stale),
            )
            .values(last_used_at=func.now())
            .execution_options(synchronize_session=False)
        )
    return row


def everyone(session: Session) -> list[tuple[ApiKey, str]]:
    """All keys with their projects' names, for the administrator's list."""
    rows = session.execute(
        select(ApiKey, projects.Project.name)
        .join(projects.Project, projects.Project.id == ApiKey.project_id)
        .order_by(ApiKey.created_at)
    )
    return [(key, name) for key, name in rows]


def revoke(session: Session, key_id: str) -> bool:
    """End a key by its id. False when there is no such live key."""
    done = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiKey.id)
    )
    return done.first() is not None
