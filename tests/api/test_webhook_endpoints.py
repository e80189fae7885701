"""An endpoint's whole life by the stock client's `webhooks`, and samples to real receivers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import openai
import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from openai.types.webhooks import (
    FineTuningJobCancelledWebhookEvent,
    FineTuningJobFailedWebhookEvent,
    FineTuningJobSucceededWebhookEvent,
    WebhookEndpoint,
    WebhookEndpointTestResult,
    WebhookEndpointWithSecret,
)
from sqlalchemy import update

from models.db import transaction
from models.webhooks import EventType, Webhook, sample
from tests.api.conftest import Live
from tests.api.hooks import ask, deliveries, ended, tell
from tests.receiver import Receiver, receiving
from worker.webhooks import Deliveries

pytestmark = pytest.mark.usefixtures("no_endpoints_left")

OPENAIS = {
    "fine_tuning.job.succeeded": FineTuningJobSucceededWebhookEvent,
    "fine_tuning.job.failed": FineTuningJobFailedWebhookEvent,
    "fine_tuning.job.cancelled": FineTuningJobCancelledWebhookEvent,
}


@pytest.fixture
def client(hooked: Live) -> Iterator[OpenAI]:
    """With its own retries, as people use it."""
    with OpenAI(base_url=hooked.base_url, api_key=hooked.key) as one:
        yield one


def create(client: OpenAI, url: str, name: str = "CI") -> WebhookEndpointWithSecret:
    return client.webhooks.create(event_types=["fine_tuning.job.succeeded"], name=name, url=url)


def an_hour_passes(live: Live) -> None:
    """For all endpoints: what they tell in whole seconds may then be compared."""
    hour = timedelta(hours=1)
    with transaction(live.engine) as session:
        earlier = {"created_at": Webhook.created_at - hour, "updated_at": Webhook.updated_at - hour}
        session.execute(update(Webhook).values(earlier))


def test_made_changed_and_deleted(client: OpenAI, hooked: Live) -> None:
    made = create(client, "https://example.com/hook")
    assert isinstance(made, WebhookEndpointWithSecret)
    assert (made.object, made.name) == ("webhook_endpoint", "CI")
    assert made.event_types == ["fine_tuning.job.succeeded"]
    assert made.url == "https://example.com/hook"
    assert made.created_at == made.updated_at
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"

    an_hour_passes(hooked)
    read = client.webhooks.retrieve(made.id)
    assert isinstance(read, WebhookEndpoint)
    assert "signing_secret" not in read.to_dict()
    assert client.webhooks.update(made.id, name="CI", url=made.url) == read
    assert client.webhooks.update(made.id) == read

    changed = client.webhooks.update(
        made.id,
        event_types=["fine_tuning.job.failed", "fine_tuning.job.cancelled"],
        url="https://example.com/other",
    )
    assert changed.event_types == ["fine_tuning.job.failed", "fine_tuning.job.cancelled"]
    assert (changed.name, changed.url) == ("CI", "https://example.com/other")
    assert (changed.created_at, read.created_at) == (read.updated_at, read.updated_at)
    assert changed.updated_at is not None
    assert changed.updated_at - changed.created_at >= 3600
    assert client.webhooks.retrieve(made.id) == changed

    gone = client.webhooks.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "webhook_endpoint.deleted", True)
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)


def test_ours_beside_openais(client: OpenAI, hooked: Live) -> None:
    """All events by `*`, no name, and `status`."""
    made = ask(hooked, "POST", "", url="https://ci.example.com:8443/x?y=1", event_types=["*", "*"])
    assert (made["name"], made["event_types"]) == ("ci.example.com", ["*"])
    assert (made["status"], made["failing_since"]) == ("enabled", None)
    off = client.webhooks.update(made["id"], extra_body={"status": "disabled"})
    assert off.to_dict()["disabled_reason"] == "Disabled by a call."
    with pytest.raises(openai.ConflictError) as refused:
        client.webhooks.test(made["id"], event_type="fine_tuning.job.failed")
    assert refused.value.code == "webhook_disabled"


def test_pages(client: OpenAI) -> None:
    made = {create(client, "https://example.com/", str(number)).id for number in range(5)}
    first = client.webhooks.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    found = [endpoint.id for endpoint in client.webhooks.list(limit=2)]
    assert found == sorted(made, reverse=True)
    assert [one.id for one in client.webhooks.list(after=found[2])] == found[3:]


def test_event_types(client: OpenAI) -> None:
    types = client.webhooks.event_types.list()
    assert (types.object, types.data) == ("list", list(EventType))
    assert set(OPENAIS) < set(types.data)
    with pytest.raises(openai.BadRequestError, match=r"fine_tuning\.job\.succeeded") as refused:
        client.webhooks.create(event_types=["batch.failed"], name="x", url="https://example.com/")
    assert refused.value.param == "event_types.0"


def test_a_sample_of_each_type(
    client: OpenAI, hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    made = create(client, receiver.url)
    an_hour_passes(hooked)
    before = client.webhooks.retrieve(made.id)

    def test(type: EventType) -> WebhookEndpointTestResult:
        return client.webhooks.test(made.id, event_type=type.value)  # type: ignore[arg-type]

    with ThreadPoolExecutor(len(EventType)) as pool:
        results = list(pool.map(test, EventType))
    assert [result.event_type for result in results] == list(EventType)
    for result in results:
        assert (result.object, result.success) == ("webhook_endpoint.test", True)
        assert (result.webhook_endpoint_id, result.status_code) == (made.id, 200)
    for one in receiver.received:
        event = one.unwrap(made.signing_secret)
        assert json.loads(one.body)["data"] == sample(EventType(event.type))
        if kind := OPENAIS.get(event.type):
            assert isinstance(event, kind)
            kind.model_validate_json(one.body)
    assert sorted(receiver.types(made.signing_secret)) == sorted(EventType)
    assert client.webhooks.retrieve(made.id) == before


def test_a_receiver_that_answers_500_is_told_and_not_tried_again(
    client: OpenAI, hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    made = create(client, receiver.url)
    receiver.answers = [500]
    result = client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
    assert (result.status_code, result.success) == (500, True)
    (log,) = deliveries(hooked, made.to_dict())
    assert (log["id"], log["sample"]) == (result.to_dict()["delivery"], True)
    assert (log["status"], log["attempts"]) == ("failed", 1)
    tell(hooked, EventType.SUCCEEDED)
    ended(hooked, made.to_dict(), 2)
    assert [one.id for one in receiver.received].count(log["id"]) == 1


def test_a_receiver_that_is_away_or_silent(
    client: OpenAI, hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    with receiving() as ended_by_now:
        pass
    away, silent = create(client, ended_by_now.url), create(client, receiver.url)
    receiver.hold.clear()
    for made, reason in ((away, "Connection refused"), (silent, "No answer within 1 seconds.")):
        with pytest.raises(openai.ConflictError, match=reason) as error:
            client.webhooks.test(made.id, event_type="fine_tuning.job.succeeded")
        assert error.value.code == "webhook_no_answer"
        (log,) = deliveries(hooked, made.to_dict())  # The client has not repeated the call.
        assert log["id"] in error.value.message
        assert f"GET /v1/webhook_endpoints/{made.id}/deliveries" in error.value.message
    receiver.hold.set()


def test_a_sample_that_nobody_sends(live: Live) -> None:
    """No control worker runs; this API waits for half a second."""
    client = live.openai()
    made = create(client, "https://example.com/")
    with pytest.raises(openai.ConflictError, match=r"within 0\.5 seconds") as error:
        client.webhooks.test(made.id, event_type="fine_tuning.job.succeeded")
    assert error.value.code == "webhook_test_pending"
    (log,) = deliveries(live, made.to_dict())
    assert log["status"] == "pending"
    assert log["id"] in error.value.message


@pytest.mark.parametrize("keep", [False, True, None])
def test_a_rotation(
    client: OpenAI, hooked: Live, receiver: Receiver, sending: Deliveries, keep: bool | None
) -> None:
    """By default the old secret ends at once."""
    old = create(client, receiver.url)
    an_hour_passes(hooked)
    asked = {} if keep is None else {"keep_old_secret_active_for_24_hours": keep}
    new = client.webhooks.rotate_secret(old.id, **asked)  # type: ignore[arg-type]
    assert new.signing_secret != old.signing_secret
    assert new.signing_secret_hint == client.webhooks.retrieve(old.id).signing_secret_hint
    assert new.updated_at is not None
    assert new.updated_at - new.created_at >= 3600
    client.webhooks.test(old.id, event_type="fine_tuning.job.succeeded")
    tell(hooked, EventType.SUCCEEDED)
    ended(hooked, old.to_dict(), 2)
    assert receiver.types(new.signing_secret) == ["fine_tuning.job.succeeded"] * 2
    for one in receiver.received:
        if keep:
            assert one.unwrap(old.signing_secret).type == "fine_tuning.job.succeeded"
        else:
            with pytest.raises(InvalidWebhookSignatureError):
                one.unwrap(old.signing_secret)


def test_a_rotation_that_keeps_nothing_ends_what_one_before_had_kept(
    client: OpenAI, receiver: Receiver, sending: Deliveries
) -> None:
    first = create(client, receiver.url)
    second = client.webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    third = client.webhooks.rotate_secret(first.id)
    client.webhooks.test(first.id, event_type="fine_tuning.job.succeeded")
    (one,) = receiver.received
    one.unwrap(third.signing_secret)
    for ended_by_now in (first, second):
        with pytest.raises(InvalidWebhookSignatureError):
            one.unwrap(ended_by_now.signing_secret)
