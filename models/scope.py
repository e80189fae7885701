"""Tenancy and paging in one place: every read that a user causes passes through `owned`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.errors import NotFound

R = TypeVar("R")


@dataclass(frozen=True)
class Page(Generic[R]):
    rows: list[R]
    has_more: bool


def owned(table: type[R], project_id: str) -> Select[R]:
    """All of a project's rows that are not deleted: the one statement every read starts from."""
    statement = select(table).where(table.project_id == project_id)  # type: ignore[attr-defined]
    if hasattr(table, "deleted_at"):
        statement = statement.where(table.deleted_at.is_(None))  # type: ignore[attr-defined]
    return statement


def require(row: R | None, kind: str, row_id: str, param: str | None = None) -> R:
    """The row, or the error that does not tell a stranger whether it exists."""
    if row is None:
        raise NotFound(
            f"No {kind} has the id {row_id!r} in this project. "
            f"It may have been deleted, or belong to another project's key.",
            param=param,
        )
    return row


def page(
    session: Session,
    statement: Select[R],
    position: InstrumentedAttribute[Any],
    *,
    after: Any | None,
    limit: int,
    ascending: bool = False,
) -> Page[R]:
    """One page by keyset: rows beyond `after` in the order of `position`, newest first."""
    if after is not None:
        statement = statement.where(position > after if ascending else position < after)
    statement = statement.order_by(position.asc() if ascending else position.desc())
    rows = list(session.scalars(statement.limit(limit + 1)))
    return Page(rows[:limit], has_more=len(rows) > limit)
