"""Webhooks: where to tell what happens to jobs, and what became of each delivery.

Paths and bodies are those of the OpenAI client's `webhooks`; the deliveries are ours beside them.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth import Caller
from api.body import JsonBody
from api.context import Context, Here, Transaction
from api.errors import errors
from api.idempotent import Repeatable
from api.paging import After, Limit, ListOf, page_of
from api.shapes.webhooks import (
    CreateWebhookEndpoint,
    DeletedWebhookEndpoint,
    RotateSecret,
    SampleWanted,
    UpdateWebhookEndpoint,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEndpointTestResult,
    WebhookEndpointWithSecret,
    WebhookEventTypes,
    webhook_delivery,
    webhook_endpoint,
    with_secret,
)
from core.errors import Conflict, NotFound, TooLarge, Unprocessable
from core.outgoing import Rules
from models import webhook_deliveries, webhooks
from models.webhook_deliveries import Delivery, DeliveryStatus
from models.webhooks import EventType, Webhook

ASK_SECONDS = 0.2

ENDPOINTS = "/webhook_endpoints"
ENDPOINT = ENDPOINTS + "/{webhook_endpoint_id}"

router = APIRouter(tags=["Webhooks"])

_create = JsonBody(CreateWebhookEndpoint)
_update = JsonBody(UpdateWebhookEndpoint)
_rotate = JsonBody(RotateSecret, may_be_empty=True)
_sample = JsonBody(SampleWanted)


@router.post(
    ENDPOINTS,
    responses=errors(NotFound, Conflict, Unprocessable, TooLarge),
    openapi_extra=_create.in_openapi(),
)
async def create_webhook_endpoint(
    asked: Annotated[CreateWebhookEndpoint, Depends(_create)],
    call: Repeatable,
    here: Here,
    caller: Caller,
    db: Transaction,
) -> WebhookEndpointWithSecret:
    """Have events POSTed to a URL, as Standard Webhooks has it. The secret is shown here alone."""
    _check_url(here, asked.url)

    async def make() -> str:
        row = Webhook(project_id=caller.project_id, **asked.model_dump())
        return (await db(webhooks.create, row)).id

    webhook_id, _ = await call.once(db, asked, make)
    row = await db(webhooks.get, caller.project_id, webhook_id)
    return with_secret(row, _secret(here, row))


@router.get(ENDPOINTS)
async def list_webhook_endpoints(
    here: Here, caller: Caller, db: Transaction, after: After = None, limit: Limit = 20
) -> ListOf[WebhookEndpoint]:
    """Newest first."""
    page = await db(webhooks.listing, caller.project_id, after=after, limit=limit)
    return page_of(page, partial(_shown, here))


@router.get(ENDPOINT, responses=errors(NotFound))
async def retrieve_webhook_endpoint(
    webhook_endpoint_id: str, here: Here, caller: Caller, db: Transaction
) -> WebhookEndpoint:
    return _shown(here, await db(webhooks.get, caller.project_id, webhook_endpoint_id))


@router.post(
    ENDPOINT,
    responses=errors(NotFound, TooLarge),
    openapi_extra=_update.in_openapi(),
)
async def update_webhook_endpoint(
    webhook_endpoint_id: str,
    asked: Annotated[UpdateWebhookEndpoint, Depends(_update)],
    here: Here,
    caller: Caller,
    db: Transaction,
) -> WebhookEndpoint:
    """Change what is given. `status` `enabled` takes a disabled one up again, from now on."""
    if asked.url is not None:
        _check_url(here, asked.url)
    values = asked.model_dump(exclude_none=True)
    return _shown(here, await db(webhooks.change, caller.project_id, webhook_endpoint_id, values))


@router.delete(ENDPOINT, responses=errors(NotFound))
async def delete_webhook_endpoint(
    webhook_endpoint_id: str, caller: Caller, db: Transaction
) -> DeletedWebhookEndpoint:
    """Delete it with its log; what was still to be delivered is not."""
    await db(webhooks.remove, caller.project_id, webhook_endpoint_id)
    return DeletedWebhookEndpoint(id=webhook_endpoint_id)


@router.post(
    ENDPOINT + "/rotate_secret",
    responses=errors(NotFound, TooLarge),
    openapi_extra=_rotate.in_openapi(),
)
async def rotate_webhook_endpoint_secret(
    webhook_endpoint_id: str,
    asked: Annotated[RotateSecret, Depends(_rotate)],
    here: Here,
    caller: Caller,
    db: Transaction,
) -> WebhookEndpointWithSecret:
    """Make a new secret. The one before is worth nothing from now on, or in a day."""
    keep = asked.keep_old_secret_active_for_24_hours
    row = await db(webhooks.rotate, caller.project_id, webhook_endpoint_id, keep_old=keep)
    return with_secret(row, _secret(here, row))


@router.post(
    ENDPOINT + "/test",
    responses=errors(NotFound, Conflict, TooLarge),
    openapi_extra=_sample.in_openapi(),
)
async def test_webhook_endpoint(
    webhook_endpoint_id: str,
    asked: Annotated[SampleWanted, Depends(_sample)],
    here: Here,
    caller: Caller,
) -> WebhookEndpointTestResult:
    """Have a control worker deliver a sample, once, and wait for what the receiver answers."""
    deadline = time.monotonic() + here.settings.webhook_test_seconds
    project_id, type = caller.project_id, EventType(asked.event_type)
    async with here.transaction() as db:
        delivery = await db(webhooks.test, project_id, webhook_endpoint_id, type)
    while _untried(delivery) and time.monotonic() < deadline:
        await asyncio.sleep(ASK_SECONDS)
        async with here.transaction() as db:
            delivery = await db(webhook_deliveries.get, delivery.id)
    return WebhookEndpointTestResult(
        webhook_endpoint_id=webhook_endpoint_id,
        event_type=type,
        status_code=_answered(delivery, here.settings.webhook_test_seconds),
        delivery=delivery.id,
    )


@router.get(ENDPOINT + "/deliveries", responses=errors(NotFound))
async def list_webhook_deliveries(
    webhook_endpoint_id: str,
    caller: Caller,
    db: Transaction,
    after: After = None,
    limit: Limit = 20,
) -> ListOf[WebhookDelivery]:
    """Newest first: what was sent, how often, and what the receiver answered."""
    webhook = await db(webhooks.get, caller.project_id, webhook_endpoint_id)
    page = await db(webhook_deliveries.listing, webhook.id, after=after, limit=limit)
    return page_of(page, webhook_delivery)


@router.get("/webhook_event_types")
async def list_webhook_event_types() -> WebhookEventTypes:
    """The types that an endpoint can ask for."""
    return WebhookEventTypes(data=list(EventType))


def _check_url(here: Context, url: str) -> None:
    Rules.parse(here.settings.outgoing_allow).check(url, "url")


def _secret(here: Context, row: Webhook) -> str:
    return webhooks.secret(here.secret, row.id, row.generation)


def _shown(here: Context, row: Webhook) -> WebhookEndpoint:
    return webhook_endpoint(row, _secret(here, row))


def _untried(delivery: Delivery) -> bool:
    return delivery.status == DeliveryStatus.PENDING and not delivery.attempts


def _answered(delivery: Delivery, waited: float) -> int:
    """The status of the receiver's answer. Raises Conflict where there is none."""
    if delivery.response_status is not None:
        return delivery.response_status
    log = f"GET /v1/webhook_endpoints/{delivery.webhook_id}/deliveries"
    if _untried(delivery):
        raise Conflict(
            f"The sample was not answered within {waited:g} seconds: it is under way, waits behind "
            "other deliveries to this endpoint, or no control worker runs. It will be sent all the "
            f"same: {log} tells what becomes of {delivery.id}.",
            code="webhook_test_pending",
        )
    reason = str(delivery.error).rstrip(".")
    raise Conflict(
        f"The receiver gave no answer: {reason}. Mend that and test again; "
        f"{log} lists this try as {delivery.id}.",
        code="webhook_no_answer",
    )
