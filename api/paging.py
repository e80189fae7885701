"""Cursors: query parameters of lists, the list's shape, and what no parameter may hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query, Request

from api.shapes.base import Identified, Shape
from core.errors import InvalidRequest
from models.scope import Page

R = TypeVar("R")
T = TypeVar("T", bound=Identified)

MAX_LIMIT = 100

After = Annotated[
    str | None,
    Query(max_length=256, description="The last id of the page before; the list goes on after it."),
]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many to return at most.")]


class ListOf(Shape, Generic[T]):
    """A page of things. For the next one, send `after=last_id`."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    first_id: str | None
    last_id: str | None


def list_of(data: list[T], *, has_more: bool) -> ListOf[T]:
    return ListOf(
        data=data,
        has_more=has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


def page_of(page: Page[R], shape: Callable[[R], T]) -> ListOf[T]:
    return list_of([shape(row) for row in page.rows], has_more=page.has_more)


async def refuse_nul(request: Request) -> None:
    """PostgreSQL's text cannot hold NUL, so no id, name or cursor may."""
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidRequest("The URL holds a NUL character (%00). Take it out.")
