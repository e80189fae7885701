"""Webhook endpoints: where a project wants to be told of what happens to its jobs.

`announce` is called in the transaction that makes a change, and writes one delivery for each
endpoint that wants to hear of it (`models/webhook_deliveries.py`): either both exist or neither.

No signing secret is stored. It is derived from the server's own (`LUTHIER_SECRET`), the endpoint's
id and a generation that each rotation raises, so a copy of the database gives nobody a signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, String, delete, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from core.errors import Conflict
from models import locks, webhook_deliveries
from models.base import Base, Created, Json
from models.scope import Page, owned, page, require
from models.state import Status
from models.webhook_deliveries import Delivery

EVERYTHING = "*"
MOST_A_PROJECT = 20
"""Each transition of a job is written once for each of them."""
ROTATION = timedelta(days=1)
"""How long the secret before the present one signs as well, where a rotation keeps it."""


class EventType(StrEnum):
    """What can be told. The first three are OpenAI's names."""

    SUCCEEDED = "fine_tuning.job.succeeded"
    FAILED = "fine_tuning.job.failed"
    CANCELLED = "fine_tuning.job.cancelled"
    CREATED = "fine_tuning.job.created"
    QUEUED = "fine_tuning.job.queued"
    RUNNING = "fine_tuning.job.running"
    PAUSED = "fine_tuning.job.paused"
    CHECKPOINT = "fine_tuning.checkpoint.created"
    DISABLED = "webhook.disabled"
    """Of an endpoint, told to the project's others."""

    @classmethod
    def of_job(cls, status: Status) -> EventType:
        """A job's entering a state."""
        return cls(f"fine_tuning.job.{status}")


class WebhookStatus(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


class Webhook(Created, Base):
    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: ids.new("wh_"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    url: Mapped[str]
    event_types: Mapped[list[str]] = mapped_column("events", ARRAY(String))
    name: Mapped[str | None] = mapped_column("description")
    status: Mapped[str] = mapped_column(default=WebhookStatus.ENABLED)
    disabled_reason: Mapped[str | None]
    generation: Mapped[int] = mapped_column(default=1)
    """Of the secret."""
    rotated_at: Mapped[datetime | None]
    """When the generation before was kept beside this one; None where it ended at once."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """The last call that changed something of it, or its secret."""
    failing_since: Mapped[datetime | None]
    """The first failure since the last success."""

    # One control worker at a time delivers to it; as with jobs, by a fence and a lease.
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_expires_at: Mapped[datetime | None]


def secret(server_secret: bytes, webhook_id: str, generation: int) -> str:
    """An endpoint's signing secret in the form of Standard Webhooks: 32 bytes as Base64."""
    words = f"webhook\0{webhook_id}\0{generation}".encode()
    digest = hmac.digest(server_secret, words, hashlib.sha256)
    return "whsec_" + base64.b64encode(digest).decode()


def create(session: Session, webhook: Webhook) -> Webhook:
    """Raises Conflict where the project has as many as it may."""
    locks.hold(session, "webhooks", webhook.project_id)
    count = select(func.count()).where(Webhook.project_id == webhook.project_id)
    if session.scalars(count).one() >= MOST_A_PROJECT:
        raise Conflict(
            f"This project has {MOST_A_PROJECT} webhook endpoints, which is the most. "
            "Delete one first.",
            code="too_many_webhooks",
        )
    session.add(webhook)
    session.flush()
    session.refresh(webhook)
    return webhook


def get(session: Session, project_id: str, webhook_id: str) -> Webhook:
    """Raises NotFound."""
    statement = owned(Webhook, project_id).where(Webhook.id == webhook_id)
    return require(session.scalar(statement), "webhook endpoint", webhook_id)


def listing(session: Session, project_id: str, *, after: str | None, limit: int) -> Page[Webhook]:
    """Newest first."""
    return page(session, owned(Webhook, project_id), Webhook.id, after=after, limit=limit)


def change(session: Session, project_id: str, webhook_id: str, values: dict[str, Any]) -> Webhook:
    """Write columns of it. Enabling it begins anew: what was not delivered before stays so.

    Raises NotFound.
    """
    webhook = _locked(session, project_id, webhook_id)
    if any(getattr(webhook, name) != value for name, value in values.items()):
        webhook.updated_at = func.now()
    if values.get("status") == WebhookStatus.DISABLED != webhook.status:
        _disable(session, webhook, "Disabled by a call.")
    elif values.get("status") == WebhookStatus.ENABLED:
        webhook.failing_since = webhook.disabled_reason = None
    for name, value in values.items():
        setattr(webhook, name, value)
    session.flush()
    session.refresh(webhook)
    return webhook


def rotate(session: Session, project_id: str, webhook_id: str, *, keep_old: bool) -> Webhook:
    """Give it a new secret. The one before signs along for `ROTATION`, or no more.

    Raises NotFound.
    """
    webhook = _locked(session, project_id, webhook_id)
    webhook.generation += 1
    webhook.rotated_at = func.now() if keep_old else None
    webhook.updated_at = func.now()
    session.flush()
    session.refresh(webhook)
    return webhook


def remove(session: Session, project_id: str, webhook_id: str) -> None:
    """Delete it with its deliveries. Raises NotFound."""
    # The row's whole lock: nobody adds a delivery to it any more.
    statement = owned(Webhook, project_id).where(Webhook.id == webhook_id).with_for_update()
    require(session.scalar(statement), "webhook endpoint", webhook_id)
    session.execute(delete(Delivery).where(Delivery.webhook_id == webhook_id))
    session.execute(delete(Webhook).where(Webhook.id == webhook_id))


def announce(session: Session, project_id: str, type: EventType, data: Json) -> None:
    """Write a delivery for each of the project's endpoints that wants events of this type."""
    wanting = (
        select(Webhook.id)
        .where(
            Webhook.project_id == project_id,
            Webhook.status == WebhookStatus.ENABLED,
            or_(
                Webhook.event_types.contains([type]),
                Webhook.event_types.contains([EVERYTHING]),
            ),
        )
        .order_by(Webhook.id)
        # An endpoint that is deleted at this moment is waited for, and left out: no delivery may
        # refer to what is gone, since that would undo the job's transition. Nothing else waits.
        .with_for_update(read=True, key_share=True)
    )
    event_id = ids.new("evt_")
    for webhook_id in session.scalars(wanting).all():
        webhook_deliveries.add(session, webhook_id, event_id, type, data)


def sample(type: EventType) -> Json:
    """Data such as an event of this type has, of things that do not exist."""
    match type:
        case EventType.CHECKPOINT:
            return {"id": "ftckpt-sample", "job": "ftjob-sample", "step_number": 1}
        case EventType.DISABLED:
            return {"id": "wh_sample", "reason": "The receiver answered 410 Gone."}
        case _:
            return {"id": "ftjob-sample"}


def test(session: Session, project_id: str, webhook_id: str, type: EventType) -> Delivery:
    """Have a sample delivered to it, whatever it wants to hear. Raises NotFound or Conflict."""
    webhook = _locked(session, project_id, webhook_id)
    if webhook.status == WebhookStatus.DISABLED:
        raise Conflict(
            f"The webhook endpoint {webhook_id} is disabled. Enable it first: "
            f'POST {{"status": "enabled"}} to /v1/webhook_endpoints/{webhook_id}.',
            code="webhook_disabled",
        )
    event_id = ids.new("evt_")
    return webhook_deliveries.add(session, webhook_id, event_id, type, sample(type), sample=True)


def disable(session: Session, webhook: Webhook, reason: str) -> None:
    """Stop delivering to it, and tell the project's others. The caller has locked its row."""
    _disable(session, webhook, reason)
    data = {"id": webhook.id, "reason": reason}
    announce(session, webhook.project_id, EventType.DISABLED, data)


def _disable(session: Session, webhook: Webhook, reason: str) -> None:
    webhook.status, webhook.disabled_reason = WebhookStatus.DISABLED, reason
    # Whoever delivers to it holds nothing any more; enabled again, it is free at once.
    webhook.fence, webhook.lease_expires_at = webhook.fence + 1, None
    session.flush()
    webhook_deliveries.give_up(session, webhook.id, "The webhook was disabled.")


def _locked(session: Session, project_id: str, webhook_id: str) -> Webhook:
    """With its row locked against everything but new deliveries. Raises NotFound."""
    statement = owned(Webhook, project_id).where(Webhook.id == webhook_id)
    found = session.scalar(statement.with_for_update(key_share=True))
    return require(found, "webhook endpoint", webhook_id)
