"""Who delivers to a webhook, and until when: as with jobs (`models/leases.py`), by a fence that
rises with each claim and a lease by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from models import webhooks
from models.leases import LeaseLost
from models.webhook_deliveries import Delivery, DeliveryStatus
from models.webhooks import ROTATION, Webhook, WebhookStatus


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt; `error` is None where the receiver took it."""

    seconds: float
    error: str | None
    status: int | None = None
    body: str | None = None
    retry_after: float | None = None
    """Seconds until the next try; None where there is none."""
    gone: bool = False
    """The receiver wants no more of anything (410)."""


@dataclass(frozen=True)
class Sendable:
    """A delivery that is due, with what is needed to sign and send it."""

    delivery: Delivery
    url: str
    generation: int
    rotating: bool
    """Whether the generation before this one signs as well."""


def claim(session: Session, lease_seconds: float, limit: int) -> list[tuple[str, int]]:
    """Take endpoints to which something is to be delivered and nobody delivers: id and fence.

    What has waited longest comes first, so that no endpoint keeps others waiting.
    """
    due = select(func.min(Delivery.next_attempt_at)).where(
        Delivery.webhook_id == Webhook.id,
        Delivery.status == DeliveryStatus.PENDING,
        Delivery.next_attempt_at <= func.now(),
    )
    longest = due.scalar_subquery()
    free = (
        select(Webhook.id)
        .where(
            or_(Webhook.lease_expires_at.is_(None), Webhook.lease_expires_at < func.now()),
            longest.is_not(None),
        )
        .order_by(longest)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )
    claimed = session.execute(
        update(Webhook)
        .where(Webhook.id.in_(free))
        .values(
            fence=Webhook.fence + 1,
            lease_expires_at=func.now() + timedelta(seconds=lease_seconds),
        )
        .returning(Webhook.id, Webhook.fence)
    )
    return [(row.id, row.fence) for row in claimed]


def next_due(
    session: Session, webhook_id: str, fence: int, lease_seconds: float
) -> Sendable | None:
    """Renew the lease and give what is to be sent now, the oldest first; None when that is all.

    Raises LeaseLost.
    """
    webhook = _hold(session, webhook_id, fence)
    delivery = session.scalar(
        select(Delivery)
        .where(
            Delivery.webhook_id == webhook_id,
            Delivery.status == DeliveryStatus.PENDING,
            Delivery.next_attempt_at <= func.now(),
        )
        .order_by(Delivery.id)
        .limit(1)
    )
    lease = func.now() + timedelta(seconds=lease_seconds) if delivery is not None else None
    session.execute(update(Webhook).where(Webhook.id == webhook_id).values(lease_expires_at=lease))
    if delivery is None:
        return None
    rotating = select(Webhook.rotated_at > func.now() - ROTATION).where(Webhook.id == webhook_id)
    return Sendable(delivery, webhook.url, webhook.generation, bool(session.scalar(rotating)))


def record(
    session: Session,
    webhook_id: str,
    fence: int,
    delivery_id: str,
    outcome: Outcome,
    disable_after: timedelta,
) -> bool:
    """Write down what came of an attempt; whether the endpoint is disabled for it.

    Raises LeaseLost. The lease is kept.
    """
    webhook = _hold(session, webhook_id, fence)
    over = outcome.error is None or outcome.retry_after is None
    ended = DeliveryStatus.FAILED if outcome.error else DeliveryStatus.SUCCEEDED
    session.execute(
        update(Delivery)
        .where(Delivery.id == delivery_id, Delivery.status == DeliveryStatus.PENDING)
        .values(
            attempts=Delivery.attempts + 1,
            last_attempt_at=func.now(),
            seconds=outcome.seconds,
            response_status=outcome.status,
            response_body=outcome.body,
            error=outcome.error,
            status=ended if over else DeliveryStatus.PENDING,
            finished_at=func.now() if over else None,
            next_attempt_at=None
            if outcome.retry_after is None
            else func.now() + timedelta(seconds=outcome.retry_after),
        )
    )
    since = None if outcome.error is None else func.coalesce(Webhook.failing_since, func.now())
    too_long = session.scalar(
        update(Webhook)
        .where(Webhook.id == webhook_id)
        .values(failing_since=since)
        .returning(Webhook.failing_since < func.now() - disable_after)
    )
    if not outcome.gone and not too_long:
        return False
    if outcome.gone:
        reason = "The receiver answered 410 Gone."
    else:
        reason = f"Every delivery has failed for {disable_after}; the last: {outcome.error}"
    webhooks.disable(session, webhook, reason)
    return True


def release(session: Session, webhook_id: str, fence: int) -> None:
    """Leave an endpoint to whoever comes next. Raises LeaseLost."""
    _hold(session, webhook_id, fence).lease_expires_at = None


def _hold(session: Session, webhook_id: str, fence: int) -> Webhook:
    """Lock an enabled endpoint for a write of its holder. Raises LeaseLost."""
    webhook = session.scalar(
        select(Webhook)
        .where(
            Webhook.id == webhook_id,
            Webhook.fence == fence,
            Webhook.status == WebhookStatus.ENABLED,
        )
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if webhook is None:
        raise LeaseLost(f"The lease of {webhook_id} at fence {fence} is lost.")
    return webhook
