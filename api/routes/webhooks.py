"""Webhooks: where to tell what happens to jobs, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth import Caller
from api.body import JsonBody
from api.context import Context, Here, Transaction
from api.errors import errors
from api.idempotent import Repeatable
from api.paging import After, Limit, ListOf, page_of
from api.shapes.webhooks import (
    ChangeWebhook,
    CreateWebhook,
    WebhookDeleted,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookWithSecret,
    webhook_delivery,
    webhook_endpoint,
    with_secret,
)
from core.errors import Conflict, NotFound, TooLarge, Unprocessable
from core.outgoing import Rules
from models import webhook_deliveries, webhooks
from models.webhooks import Webhook

router = APIRouter(prefix="/webhooks", tags=["Webhooks"])

_create = JsonBody(CreateWebhook)
_change = JsonBody(ChangeWebhook)


@router.post(
    "",
    responses=errors(NotFound, Conflict, Unprocessable, TooLarge),
    openapi_extra=_create.in_openapi(),
)
async def create_webhook(
    asked: Annotated[CreateWebhook, Depends(_create)],
    call: Repeatable,
    here: Here,
    caller: Caller,
    db: Transaction,
) -> WebhookWithSecret:
    """Have events POSTed to a URL, as Standard Webhooks has it. The secret is shown here alone."""
    _check_url(here, asked.url)

    async def make() -> str:
        row = Webhook(project_id=caller.project_id, **asked.model_dump())
        return (await db(webhooks.create, row)).id

    webhook_id, _ = await call.once(db, asked, make)
    return _shown(here, await db(webhooks.get, caller.project_id, webhook_id))


@router.get("")
async def list_webhooks(
    caller: Caller, db: Transaction, after: After = None, limit: Limit = 20
) -> ListOf[WebhookEndpoint]:
    """Newest first."""
    page = await db(webhooks.listing, caller.project_id, after=after, limit=limit)
    return page_of(page, webhook_endpoint)


@router.get("/{webhook_id}", responses=errors(NotFound))
async def retrieve_webhook(webhook_id: str, caller: Caller, db: Transaction) -> WebhookEndpoint:
    return webhook_endpoint(await db(webhooks.get, caller.project_id, webhook_id))


@router.patch(
    "/{webhook_id}",
    responses=errors(NotFound, TooLarge),
    openapi_extra=_change.in_openapi(),
)
async def change_webhook(
    webhook_id: str,
    asked: Annotated[ChangeWebhook, Depends(_change)],
    here: Here,
    caller: Caller,
    db: Transaction,
) -> WebhookEndpoint:
    """Change what is given. `status` `enabled` takes a disabled one up again, from now on."""
    if asked.url is not None:
        _check_url(here, asked.url)
    # Null takes a description away; of the others it says no more than leaving them out.
    values = asked.model_dump(exclude_unset=True)
    values = {k: v for k, v in values.items() if v is not None or k == "description"}
    return webhook_endpoint(await db(webhooks.change, caller.project_id, webhook_id, values))


@router.delete("/{webhook_id}", responses=errors(NotFound))
async def delete_webhook(webhook_id: str, caller: Caller, db: Transaction) -> WebhookDeleted:
    """Delete it with its log; what was still to be delivered is not."""
    await db(webhooks.remove, caller.project_id, webhook_id)
    return WebhookDeleted(id=webhook_id)


@router.post("/{webhook_id}/rotate_secret", responses=errors(NotFound))
async def rotate_webhook_secret(
    webhook_id: str, here: Here, caller: Caller, db: Transaction
) -> WebhookWithSecret:
    """Make a new secret. For a day deliveries are signed with the one before as well."""
    return _shown(here, await db(webhooks.rotate, caller.project_id, webhook_id))


@router.post("/{webhook_id}/test", responses=errors(NotFound, Conflict))
async def test_webhook(webhook_id: str, caller: Caller, db: Transaction) -> WebhookDelivery:
    """Deliver a `webhook.test`. What became of it stands among the deliveries, soon after."""
    return webhook_delivery(await db(webhooks.test, caller.project_id, webhook_id))


@router.get("/{webhook_id}/deliveries", responses=errors(NotFound))
async def list_webhook_deliveries(
    webhook_id: str, caller: Caller, db: Transaction, after: After = None, limit: Limit = 20
) -> ListOf[WebhookDelivery]:
    """Newest first: what was sent, how often, and what the receiver answered."""
    webhook = await db(webhooks.get, caller.project_id, webhook_id)
    page = await db(webhook_deliveries.listing, webhook.id, after=after, limit=limit)
    return page_of(page, webhook_delivery)


def _check_url(here: Context, url: str) -> None:
    Rules.parse(here.settings.outgoing_allow).check(url, "url")


def _shown(here: Context, row: Webhook) -> WebhookWithSecret:
    return with_secret(row, webhooks.secret(here.secret, row.id, row.generation))
