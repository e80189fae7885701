"""Webhook endpoints and their deliveries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from api.shapes.base import Identified, Shape
from core.clock import unix
from models.data_spec import Strict
from models.webhook_deliveries import Delivery
from models.webhooks import EVERYTHING, EventType, Webhook

Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Events = Annotated[
    list[str],
    Field(
        min_length=1,
        max_length=32,
        description=f"Types of events, or `{EVERYTHING}` for all: "
        + ", ".join(f"`{kind}`" for kind in EventType if kind is not EventType.TEST),
    ),
]
Description = Annotated[str, StringConstraints(max_length=512)]


class _Choices(Strict):
    @field_validator("events", check_fields=False)
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        known = [EVERYTHING, *EventType]
        for name in value or []:
            if name not in known:
                raise ValueError(f"{name!r} is no type of event; there are {', '.join(known)}")
        return value and list(dict.fromkeys(value))


class CreateWebhook(_Choices):
    """The body of POST /v1/webhooks."""

    url: Url
    events: Events
    description: Description | None = None


class ChangeWebhook(_Choices):
    """The body of PATCH /v1/webhooks/{webhook_id}: what is left out stays."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    status: Literal["enabled", "disabled"] | None = None


class WebhookEndpoint(Identified):
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    url: str
    events: list[str]
    description: str | None
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    failing_since: int | None
    """The first failure since the last success."""


class WebhookWithSecret(WebhookEndpoint):
    secret: str
    """Checks the signatures. It is shown here alone."""


class WebhookDeleted(Shape):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookDelivery(Identified):
    """One event to one endpoint. Its id is the `webhook-id` of every attempt."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    created_at: int
    webhook: str
    event: str
    type: str
    status: Literal["pending", "succeeded", "failed"]
    attempts: int
    next_attempt_at: int | None
    last_attempt_at: int | None
    seconds: float | None
    """That the last attempt took."""
    response_status: int | None
    response_body: str | None
    """The first bytes of the last answer."""
    error: str | None
    """Why the last attempt came to nothing."""


def webhook_endpoint(row: Webhook) -> WebhookEndpoint:
    return WebhookEndpoint(**_columns(row))


def with_secret(row: Webhook, secret: str) -> WebhookWithSecret:
    return WebhookWithSecret(**_columns(row), secret=secret)


def _columns(row: Webhook) -> dict[str, object]:
    return {
        "id": row.id,
        "created_at": unix(row.created_at),
        "url": row.url,
        "events": row.events,
        "description": row.description,
        "status": row.status,
        "disabled_reason": row.disabled_reason,
        "failing_since": unix(row.failing_since) if row.failing_since else None,
    }


def webhook_delivery(row: Delivery) -> WebhookDelivery:
    return WebhookDelivery(
        id=row.id,
        created_at=unix(row.created_at),
        webhook=row.webhook_id,
        event=row.event_id,
        type=row.type,
        status=row.status,
        attempts=row.attempts,
        next_attempt_at=unix(row.next_attempt_at) if row.next_attempt_at else None,
        last_attempt_at=unix(row.last_attempt_at) if row.last_attempt_at else None,
        seconds=row.seconds,
        response_status=row.response_status,
        response_body=row.response_body,
        error=row.error,
    )
