"""Webhook endpoints and their deliveries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from api.shapes.base import Identified, Shape
from core.clock import unix
from models.data_spec import Strict
from models.webhook_deliveries import Delivery
from models.webhooks import EVERYTHING, EventType, Webhook

TYPES = [str(kind) for kind in EventType]


def _among(known: list[str]) -> Callable[[str], str]:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"{name!r} is no type of event here; there are {', '.join(known)}")
        return name

    return check


Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
EventName = Annotated[
    str, AfterValidator(_among(TYPES)), WithJsonSchema({"type": "string", "enum": TYPES})
]
Wanted = Annotated[
    str,
    AfterValidator(_among([*TYPES, EVERYTHING])),
    WithJsonSchema({"type": "string", "enum": [*TYPES, EVERYTHING]}),
]
EventNames = Annotated[
    list[Wanted],
    Field(min_length=1, max_length=32, description=f"`{EVERYTHING}` stands for all of them."),
    AfterValidator(lambda names: list(dict.fromkeys(names))),
]


class CreateWebhookEndpoint(Strict):
    """The body of POST /v1/webhook_endpoints."""

    url: Url
    event_types: EventNames
    name: Name | None = Field(None, description="What people call it; the URL's host if left out.")


class UpdateWebhookEndpoint(Strict):
    """The body of POST /v1/webhook_endpoints/{webhook_endpoint_id}: what is left out stays."""

    url: Url | None = None
    event_types: EventNames | None = None
    name: Name | None = None
    status: Literal["enabled", "disabled"] | None = None


class RotateSecret(Strict):
    """The body of POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret."""

    keep_old_secret_active_for_24_hours: bool = Field(
        False, description="Whether the old secret signs as well for a day, or no more from now on."
    )


class SampleWanted(Strict):
    """The body of POST /v1/webhook_endpoints/{webhook_endpoint_id}/test."""

    event_type: EventName


class WebhookEndpoint(Identified):
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    """The last call that changed something of it, or its secret."""
    url: str
    event_types: list[str]
    name: str
    signing_secret_hint: str
    """The end of the secret, to tell which it is."""
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    failing_since: int | None
    """The first failure since the last success."""


class WebhookEndpointWithSecret(WebhookEndpoint):
    signing_secret: str
    """Checks the signatures. It is shown here alone."""


class DeletedWebhookEndpoint(Shape):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookEndpointTestResult(Shape):
    """What the receiver answered to a sample, whatever it was."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    success: Literal[True] = True
    """That there was an answer."""
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    delivery: str
    """The id of the sample's delivery."""


class WebhookEventTypes(Shape):
    object: Literal["list"] = "list"
    data: list[EventType]


class WebhookDelivery(Identified):
    """One event to one endpoint. Its id is the `webhook-id` of every attempt."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    created_at: int
    webhook: str
    event: str
    type: str
    sample: bool
    """Of no event: sent once, by a call that tests the endpoint."""
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


def webhook_endpoint(row: Webhook, secret: str) -> WebhookEndpoint:
    return WebhookEndpoint(**_columns(row, secret))


def with_secret(row: Webhook, secret: str) -> WebhookEndpointWithSecret:
    return WebhookEndpointWithSecret(**_columns(row, secret), signing_secret=secret)


def _columns(row: Webhook, secret: str) -> dict[str, object]:
    return {
        "id": row.id,
        "created_at": unix(row.created_at),
        "updated_at": unix(row.updated_at),
        "url": row.url,
        "event_types": row.event_types,
        "name": row.name or urlsplit(row.url).hostname,
        "signing_secret_hint": f"whsec_...{secret[-4:]}",
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
        sample=row.sample,
        status=row.status,
        attempts=row.attempts,
        next_attempt_at=unix(row.next_attempt_at) if row.next_attempt_at else None,
        last_attempt_at=unix(row.last_attempt_at) if row.last_attempt_at else None,
        seconds=row.seconds,
        response_status=row.response_status,
        response_body=row.response_body,
        error=row.error,
    )
