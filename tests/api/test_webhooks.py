"""Webhooks from the call that asks for one to a receiver that checks the signature."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError
from sqlalchemy import func, update

from core.doorbell import Doorbell
from models import checkpoints, control, leases, webhook_deliveries, webhook_leases, webhooks
from models.checkpoints import Checkpoint
from models.db import transaction
from models.state import Desired, Status
from models.webhook_deliveries import Delivery
from models.webhooks import Webhook
from tests.api.conftest import Live, running, settings_for
from tests.faults.processes import wait_for
from tests.receiver import Receiver, receiving
from tests.rows import claim, make_job, read_job
from worker.context import Context
from worker.reconcilers import clean
from worker.webhooks import Deliveries

RETRIES = [0.1, 0.1, 0.1]


@pytest.fixture(scope="module")
def hooked(live: Live) -> Iterator[Live]:
    """The API with this machine's own addresses opened, and short waits between tries."""
    settings = settings_for(
        live.settings.data_dir,
        str(live.settings.database_url),
        str(live.settings.redis_url),
        outgoing_allow=["127.0.0.0/8"],
        webhook_retry_seconds=RETRIES,
        webhook_timeout_seconds=1,
    )
    with running(settings) as url:
        yield Live(**(vars(live) | {"url": url, "settings": settings}))


def context(live: Live) -> Context:
    return Context(live.settings, live.engine, live.store, Doorbell(live.settings))


@pytest.fixture
def sending(hooked: Live) -> Iterator[Deliveries]:
    """What a control worker runs."""
    deliveries = Deliveries(context(hooked))
    deliveries.start()
    yield deliveries
    deliveries.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(autouse=True)
def _no_webhooks_of_others(hooked: Live) -> Iterator[None]:
    yield
    for webhook in ask(hooked, "GET", "/webhooks")["data"]:
        ask(hooked, "DELETE", f"/webhooks/{webhook['id']}")


def ask(live: Live, method: str, path: str, key: str | None = None, **body: Any) -> Any:
    with live.http(key, verify=False) as http:
        answer = http.request(method, path, json=body or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(live: Live, method: str, path: str, **body: Any) -> tuple[int, str, str | None]:
    with live.http(verify=False) as http:
        answer = http.request(method, path, json=body or None)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def make(live: Live, receiver: Receiver, *events: str, path: str = "/hook") -> Any:
    return ask(live, "POST", "/webhooks", url=receiver.url + path, events=[*events] or ["*"])


def deliveries(live: Live, webhook: Any) -> list[Any]:
    found: list[Any] = ask(live, "GET", f"/webhooks/{webhook['id']}/deliveries")["data"]
    return found


def ended(live: Live, webhook: Any, count: int = 1) -> list[Any]:
    """The log, once so many deliveries have ended."""

    def over() -> list[Any] | None:
        log = deliveries(live, webhook)
        return log if sum(one["status"] != "pending" for one in log) >= count else None

    return wait_for(f"{count} deliveries have ended", over, 20)


def run_job(live: Live) -> str:
    """Take a job through every state but the failed and the cancelled one, with a checkpoint."""
    job_id = make_job(live.engine, live.project_id, priority=100)
    with transaction(live.engine) as session:
        control.ask(session, live.project_id, job_id, Desired.PAUSE, "save")
        control.ask(session, live.project_id, job_id, Desired.RUN, "save")
    job = claim(live.engine)
    assert job.id == job_id
    with transaction(live.engine) as session:
        checkpoint = Checkpoint(
            job_id=job_id,
            fence=job.fence,
            step=20,
            model_id="ft:x",
            prefix="p",
            files=[],
            bytes=1,
            metrics={},
            reason="interval",
        )
        checkpoints.add(session, checkpoint)
        leases.end(session, job_id, job.fence, Status.SUCCEEDED, "succeeded")
    return job_id


def test_every_transition_is_told_once_and_signed(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    webhook = make(hooked, receiver)
    assert webhook["secret"].startswith("whsec_")
    some = make(hooked, receiver, "fine_tuning.job.succeeded", path="/some")
    stranger = ask(hooked, "POST", "/webhooks", hooked.stranger_key, url=receiver.url, events=["*"])
    job_id = run_job(hooked)
    log = ended(hooked, webhook, 7)
    ended(hooked, some)
    assert [one["type"] for one in reversed(log)] == [
        "fine_tuning.job.created",
        "fine_tuning.job.queued",
        "fine_tuning.job.paused",
        "fine_tuning.job.queued",
        "fine_tuning.job.running",
        "fine_tuning.checkpoint.created",
        "fine_tuning.job.succeeded",
    ]
    assert {(one["status"], one["attempts"], one["response_status"]) for one in log} == {
        ("succeeded", 1, 200)
    }
    assert log[0]["response_body"] == "this is 200"
    all_of_it = [one for one in receiver.received if one.path == "/hook"]
    assert [one.id for one in all_of_it] == [one["id"] for one in reversed(log)]
    event = all_of_it[-1].unwrap(webhook["secret"])
    assert (event.type, event.data.id, event.object) == (
        "fine_tuning.job.succeeded",
        job_id,
        "event",
    )
    assert event.id == log[0]["event"]
    told = all_of_it[-2].unwrap(webhook["secret"]).data
    assert (told.job, told.step_number) == (job_id, 20)
    (only,) = [one for one in receiver.received if one.path == "/some"]
    assert only.unwrap(some["secret"]).id == event.id
    with pytest.raises(InvalidWebhookSignatureError):
        only.unwrap(webhook["secret"])
    assert (
        ask(hooked, "GET", f"/webhooks/{stranger['id']}/deliveries", hooked.stranger_key)["data"]
        == []
    )
    ask(hooked, "DELETE", f"/webhooks/{stranger['id']}", hooked.stranger_key)


def test_a_transition_that_is_undone_is_not_told(hooked: Live, receiver: Receiver) -> None:
    webhook = make(hooked, receiver)
    job_id = make_job(hooked.engine, hooked.project_id)
    with transaction(hooked.engine) as session:
        control.ask(session, hooked.project_id, job_id, Desired.CANCEL, "save")
        session.rollback()
    assert read_job(hooked.engine, job_id).status == "queued"
    told = [one["type"] for one in deliveries(hooked, webhook)]
    assert told == ["fine_tuning.job.queued", "fine_tuning.job.created"]
    with transaction(hooked.engine) as session:
        control.ask(session, hooked.project_id, job_id, Desired.CANCEL, "save")
    assert deliveries(hooked, webhook)[0]["type"] == "fine_tuning.job.cancelled"


def test_a_receiver_that_fails_twice_gets_it_the_third_time(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    webhook = make(hooked, receiver)
    receiver.answers = [500, 503]
    test = ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")
    assert (test["type"], test["status"]) == ("webhook.test", "pending")
    (done,) = ended(hooked, webhook)
    assert (done["id"], done["status"], done["attempts"]) == (test["id"], "succeeded", 3)
    assert [one.id for one in receiver.received] == [test["id"]] * 3
    assert receiver.types(webhook["secret"]) == ["webhook.test"] * 3
    assert len({one.body for one in receiver.received}) == 1
    assert ask(hooked, "GET", f"/webhooks/{webhook['id']}")["failing_since"] is None


def test_a_receiver_that_never_answers_well(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    webhook = make(hooked, receiver)
    receiver.answers = [500] * 4
    ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")
    (failed,) = ended(hooked, webhook)
    assert (failed["status"], failed["attempts"]) == ("failed", 1 + len(RETRIES))
    assert (failed["response_status"], failed["response_body"]) == (500, "this is 500")
    assert failed["error"] == "The receiver answered 500."
    now = ask(hooked, "GET", f"/webhooks/{webhook['id']}")
    assert now["status"] == "enabled"
    assert now["failing_since"] is not None


def test_a_redirect_is_not_followed(hooked: Live, receiver: Receiver, sending: Deliveries) -> None:
    webhook = make(hooked, receiver)
    receiver.answers = [302, 307, 301, 308]
    ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")
    (failed,) = ended(hooked, webhook)
    assert failed["status"] == "failed"
    assert "redirects are not followed" in failed["error"]
    assert {one.path for one in receiver.received} == {"/hook"}


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "https://[::1]/", "http://192.168.0.1/", "nonsense", "file:///etc"]
)
def test_a_url_that_is_not_allowed(hooked: Live, url: str) -> None:
    problem = (400, "url_not_allowed", "url")
    assert refused(hooked, "POST", "/webhooks", url=url, events=["*"]) == problem
    webhook = ask(hooked, "POST", "/webhooks", url="https://example.com/", events=["*"])
    assert refused(hooked, "PATCH", f"/webhooks/{webhook['id']}", url=url) == problem


def test_a_name_that_leads_inside_is_refused_when_it_is_called(
    live: Live, hooked: Live, receiver: Receiver
) -> None:
    """On a server where nothing is opened; the name is resolved when it is called, not before."""
    port = receiver.url.rpartition(":")[2]
    url = f"https://localhost:{port}/"
    webhook = ask(live, "POST", "/webhooks", url=url, events=["*"])
    sending = Deliveries(context(live))
    sending.start()
    try:
        ask(live, "POST", f"/webhooks/{webhook['id']}/test")
        tried = wait_for(
            "it was tried", lambda: [d for d in deliveries(live, webhook) if d["attempts"]]
        )
    finally:
        sending.stop()
    assert tried[0]["status"] == "pending"
    assert "not a public address" in tried[0]["error"]
    assert tried[0]["response_status"] is None
    assert receiver.received == []


def test_both_secrets_sign_for_a_day_after_a_rotation(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    old = make(hooked, receiver)
    new = ask(hooked, "POST", f"/webhooks/{old['id']}/rotate_secret")
    assert new["secret"] != old["secret"]
    ask(hooked, "POST", f"/webhooks/{old['id']}/test")
    ended(hooked, old)
    assert receiver.types(old["secret"]) == receiver.types(new["secret"]) == ["webhook.test"]
    with transaction(hooked.engine) as session:
        a_day_ago = func.now() - timedelta(days=1)
        session.execute(update(Webhook).values(rotated_at=a_day_ago))
    ask(hooked, "POST", f"/webhooks/{old['id']}/test")
    ended(hooked, old, 2)
    assert receiver.received[-1].unwrap(new["secret"]).type == "webhook.test"
    with pytest.raises(InvalidWebhookSignatureError):
        receiver.received[-1].unwrap(old["secret"])


def test_the_secret_is_shown_when_it_is_made_alone(hooked: Live, receiver: Receiver) -> None:
    webhook = make(hooked, receiver)
    shown = [
        ask(hooked, "GET", "/webhooks"),
        ask(hooked, "GET", f"/webhooks/{webhook['id']}"),
        ask(hooked, "PATCH", f"/webhooks/{webhook['id']}", description="mine"),
    ]
    assert "whsec_" not in repr(shown)
    with transaction(hooked.engine) as session:
        row = session.get_one(Webhook, webhook["id"])
        assert webhook["secret"].removeprefix("whsec_")[:8] not in repr(vars(row))


def test_gone_disables_at_once_and_the_others_are_told(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    webhook = make(hooked, receiver, "fine_tuning.job.failed")
    receiver.answers = [410]
    ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")
    ended(hooked, webhook)
    other = make(hooked, receiver, "webhook.disabled", path="/other")
    assert ask(hooked, "GET", f"/webhooks/{webhook['id']}")["status"] == "disabled"
    assert deliveries(hooked, other) == []

    path = f"/webhooks/{webhook['id']}"
    assert refused(hooked, "POST", f"{path}/test") == (409, "webhook_disabled", None)
    again = ask(hooked, "PATCH", path, status="enabled")
    assert (again["status"], again["disabled_reason"]) == ("enabled", None)
    receiver.answers = [410]
    ask(hooked, "POST", f"{path}/test")
    ended(hooked, other)
    event = receiver.received[-1].unwrap(other["secret"])
    assert (event.type, event.data.id) == ("webhook.disabled", webhook["id"])
    assert "410" in event.data.reason


def test_failing_for_days_disables(hooked: Live, receiver: Receiver, sending: Deliveries) -> None:
    webhook = make(hooked, receiver)
    with transaction(hooked.engine) as session:
        long_ago = func.now() - timedelta(days=6)
        session.execute(update(Webhook).values(failing_since=long_ago))
    receiver.answers = [500]
    ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")
    (failed,) = ended(hooked, webhook)
    assert failed["status"] == "failed"
    assert failed["error"] == "The receiver answered 500. The webhook was disabled."
    now = ask(hooked, "GET", f"/webhooks/{webhook['id']}")
    assert now["status"] == "disabled"
    assert "5 days" in now["disabled_reason"]
    make_job(hooked.engine, hooked.project_id)
    assert len(deliveries(hooked, webhook)) == 1


def test_one_slow_receiver_holds_up_no_other(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    slow = make(hooked, receiver)
    receiver.hold.clear()
    for _ in range(3):
        ask(hooked, "POST", f"/webhooks/{slow['id']}/test")
    wait_for("the slow one was asked", lambda: receiver.received)
    with receiving() as other:
        fast = make(hooked, other)
        ask(hooked, "POST", f"/webhooks/{fast['id']}/test")
        ended(hooked, fast)
    assert all(one["attempts"] < 2 for one in deliveries(hooked, slow))
    receiver.hold.set()


def test_two_controls_deliver_each_event_once(hooked: Live, receiver: Receiver) -> None:
    webhook = make(hooked, receiver)
    both = [Deliveries(context(hooked)) for _ in range(2)]
    for one in both:
        one.start()
    sent = {ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")["id"] for _ in range(12)}
    log = ended(hooked, webhook, 12)
    for one in both:
        one.stop()
    assert {one["id"] for one in log} == sent
    assert sorted(one.id for one in receiver.received) == sorted(sent)


def test_who_was_overtaken_writes_nothing(hooked: Live, receiver: Receiver) -> None:
    """As after a freeze: the lease ran out while it was sending, and somebody else has sent it."""
    webhook = make(hooked, receiver)
    sent = ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")
    with transaction(hooked.engine) as session:
        ((_, fence),) = webhook_leases.claim(session, 0.0, 8)
    with transaction(hooked.engine) as session:
        ((_, newer),) = webhook_leases.claim(session, 30.0, 8)
    assert newer == fence + 1
    outcome = webhook_leases.Outcome(0.1, None, 200, "ok")
    with pytest.raises(leases.LeaseLost), transaction(hooked.engine) as session:
        webhook_leases.record(session, webhook["id"], fence, sent["id"], outcome, timedelta(days=5))
    assert deliveries(hooked, webhook)[0]["status"] == "pending"


def test_a_webhook_that_is_deleted_at_this_moment_holds_no_job_up(
    hooked: Live, receiver: Receiver
) -> None:
    """The deletion is not committed yet when the job's transition comes to tell of itself."""
    webhook = make(hooked, receiver)
    job_id = make_job(hooked.engine, hooked.project_id)

    def cancel() -> None:
        with transaction(hooked.engine) as session:
            control.ask(session, hooked.project_id, job_id, Desired.CANCEL, "save")

    with ThreadPoolExecutor(1) as pool:
        with transaction(hooked.engine) as session:
            webhooks.remove(session, hooked.project_id, webhook["id"])
            cancelled = pool.submit(cancel)
            with pytest.raises(TimeoutError):
                cancelled.result(0.5)
        cancelled.result(10)
    assert read_job(hooked.engine, job_id).status == "cancelled"
    assert refused(hooked, "GET", f"/webhooks/{webhook['id']}") == (404, "not_found", None)


def test_choices_are_checked(hooked: Live, receiver: Receiver) -> None:
    wrong = refused(hooked, "POST", "/webhooks", url=receiver.url, events=["fine_tuning.job.won"])
    assert wrong[0] == 400
    assert wrong[2] == "events"
    assert refused(hooked, "POST", "/webhooks", url=receiver.url, events=[])[0] == 400
    for _ in range(20):
        make(hooked, receiver)
    many = refused(hooked, "POST", "/webhooks", url=receiver.url, events=["*"])
    assert many == (409, "too_many_webhooks", None)


def test_the_log_is_kept_for_a_while(hooked: Live, receiver: Receiver) -> None:
    webhook = make(hooked, receiver)
    for _ in range(2):
        ask(hooked, "POST", f"/webhooks/{webhook['id']}/test")
    ask(hooked, "PATCH", f"/webhooks/{webhook['id']}", status="disabled")
    newest, oldest = deliveries(hooked, webhook)
    assert newest["status"] == oldest["status"] == "failed"
    with transaction(hooked.engine) as session:
        session.get_one(Delivery, oldest["id"]).finished_at = func.now() - timedelta(days=31)
    clean.reconcile(context(hooked))
    assert [one["id"] for one in deliveries(hooked, webhook)] == [newest["id"]]
    with transaction(hooked.engine) as session:
        webhook_deliveries.forget(session, timedelta())
    assert deliveries(hooked, webhook) == []
