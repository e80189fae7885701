"""What every table shares: the declarative base, naming of constraints, column types."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, MetaData, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

Json = dict[str, Any]


def storable(found: Any) -> Any:
    """The same without NUL, which PostgreSQL's text cannot hold, and what comes of data may."""
    if isinstance(found, str):
        return found.replace("\0", "\ufffd")
    if isinstance(found, dict):
        return {storable(name): storable(value) for name, value in found.items()}
    if isinstance(found, list):
        return [storable(value) for value in found]
    return found


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        Json: JSONB,
        list[Any]: JSONB,
        dict[str, str]: JSONB,
    }


class Created:
    """`created_at` by the database's clock."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
