"""Deliveries of webhooks: the outbox, and the log of what became of each.

A row is written with the change that it tells of, and sent by whichever control worker holds the
endpoint's lease. Killed between sending and writing that down, it is sent again under the same id.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, delete, false, func, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models.base import Base, Created, Json
from models.scope import Page, page, require


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Delivery(Created, Base):
    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
        Index(
            "ix_webhook_deliveries_pending",
            "webhook_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: ids.new("msg_"))
    """The `webhook-id` of each of its attempts."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    event_id: Mapped[str]
    """Equal for all endpoints that are told of the same."""
    type: Mapped[str]
    data: Mapped[Json]
    sample: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Of no event, asked for by a call. It is sent once: nobody waits for it afterwards."""
    status: Mapped[str] = mapped_column(default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    last_attempt_at: Mapped[datetime | None]
    seconds: Mapped[float | None]
    """That the last attempt took."""
    response_status: Mapped[int | None]
    response_body: Mapped[str | None]
    """The first bytes of the last answer."""
    error: Mapped[str | None]
    """Why the last attempt came to nothing."""
    finished_at: Mapped[datetime | None]


def add(
    session: Session,
    webhook_id: str,
    event_id: str,
    type: str,
    data: Json,
    *,
    sample: bool = False,
) -> Delivery:
    """The caller has locked the endpoint's row against being deleted."""
    delivery = Delivery(
        webhook_id=webhook_id, event_id=event_id, type=type, data=data, sample=sample
    )
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery


def get(session: Session, delivery_id: str) -> Delivery:
    """The caller has checked whose endpoint it is. Raises NotFound."""
    return require(session.get(Delivery, delivery_id), "delivery", delivery_id)


def listing(session: Session, webhook_id: str, *, after: str | None, limit: int) -> Page[Delivery]:
    """Newest first. The caller has checked whose endpoint it is."""
    statement = select(Delivery).where(Delivery.webhook_id == webhook_id)
    if after is not None:
        cursor = session.scalar(statement.where(Delivery.id == after))
        require(cursor, "delivery", after, "after")
    return page(session, statement, Delivery.id, after=after, limit=limit)


def give_up(session: Session, webhook_id: str, why: str) -> None:
    """End what is still to be delivered to an endpoint."""
    session.execute(
        update(Delivery)
        .where(Delivery.webhook_id == webhook_id, Delivery.status == DeliveryStatus.PENDING)
        .values(
            status=DeliveryStatus.FAILED,
            error=func.coalesce(Delivery.error + " ", "") + why,
            next_attempt_at=None,
            finished_at=func.now(),
        )
    )


def forget(session: Session, older_than: timedelta) -> None:
    """Drop the log of what ended long ago; cleaning calls this."""
    session.execute(delete(Delivery).where(Delivery.finished_at < func.now() - older_than))
