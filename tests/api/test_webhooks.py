"""Webhooks from the call that asks for one to a receiver that checks the signature."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from openai import InvalidWebhookSignatureError
from sqlalchemy import func, update

from models import checkpoints, control, leases, webhook_deliveries, webhook_leases, webhooks
from models.checkpoints import Checkpoint
from models.db import transaction
from models.state import Desired, Status
from models.webhook_deliveries import Delivery
from models.webhooks import EventType, Webhook
from tests.api.conftest import RETRIES, Live, control_context
from tests.api.hooks import ask, deliveries, ended, make, refused, tell
from tests.faults.processes import wait_for
from tests.receiver import Receiver, receiving
from tests.rows import claim, make_job, read_job
from worker.reconcilers import clean
from worker.webhooks import Deliveries

pytestmark = pytest.mark.usefixtures("no_endpoints_left")


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
    assert webhook["signing_secret"].startswith("whsec_")
    some = make(hooked, receiver, "fine_tuning.job.succeeded", path="/some")
    stranger = ask(hooked, "POST", "", hooked.stranger_key, url=receiver.url, event_types=["*"])
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
    event = all_of_it[-1].unwrap(webhook["signing_secret"])
    assert (event.type, event.data.id, event.object) == (
        "fine_tuning.job.succeeded",
        job_id,
        "event",
    )
    assert event.id == log[0]["event"]
    told = all_of_it[-2].unwrap(webhook["signing_secret"]).data
    assert (told.job, told.step_number) == (job_id, 20)
    for one in all_of_it:
        content = json.loads(one.body)
        assert set(content["data"]) == set(webhooks.sample(EventType(content["type"])))
    (only,) = [one for one in receiver.received if one.path == "/some"]
    assert only.unwrap(some["signing_secret"]).id == event.id
    with pytest.raises(InvalidWebhookSignatureError):
        only.unwrap(webhook["signing_secret"])
    assert ask(hooked, "GET", f"/{stranger['id']}/deliveries", hooked.stranger_key)["data"] == []
    ask(hooked, "DELETE", f"/{stranger['id']}", hooked.stranger_key)


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
    tell(hooked)
    (done,) = ended(hooked, webhook)
    assert (done["status"], done["attempts"]) == ("succeeded", 3)
    assert [one.id for one in receiver.received] == [done["id"]] * 3
    assert receiver.types(webhook["signing_secret"]) == ["fine_tuning.job.queued"] * 3
    assert len({one.body for one in receiver.received}) == 1
    assert ask(hooked, "GET", f"/{webhook['id']}")["failing_since"] is None


def test_a_receiver_that_never_answers_well(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    webhook = make(hooked, receiver)
    receiver.answers = [500] * 4
    tell(hooked)
    (failed,) = ended(hooked, webhook)
    assert (failed["status"], failed["attempts"]) == ("failed", 1 + len(RETRIES))
    assert (failed["response_status"], failed["response_body"]) == (500, "this is 500")
    assert failed["error"] == "The receiver answered 500."
    now = ask(hooked, "GET", f"/{webhook['id']}")
    assert now["status"] == "enabled"
    assert now["failing_since"] is not None


def test_a_redirect_is_not_followed(hooked: Live, receiver: Receiver, sending: Deliveries) -> None:
    webhook = make(hooked, receiver)
    receiver.answers = [302, 307, 301, 308]
    tell(hooked)
    (failed,) = ended(hooked, webhook)
    assert failed["status"] == "failed"
    assert "redirects are not followed" in failed["error"]
    assert {one.path for one in receiver.received} == {"/hook"}


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "https://[::1]/", "http://192.168.0.1/", "nonsense", "file:///etc"]
)
def test_a_url_that_is_not_allowed(hooked: Live, url: str) -> None:
    problem = (400, "url_not_allowed", "url")
    assert refused(hooked, "POST", "", url=url, event_types=["*"]) == problem
    webhook = ask(hooked, "POST", "", url="https://example.com/", event_types=["*"])
    assert refused(hooked, "POST", f"/{webhook['id']}", url=url) == problem


def test_a_name_that_leads_inside_is_refused_when_it_is_called(
    live: Live, hooked: Live, receiver: Receiver
) -> None:
    """On a server where nothing is opened; the name is resolved when it is called, not before."""
    port = receiver.url.rpartition(":")[2]
    url = f"https://localhost:{port}/"
    webhook = ask(live, "POST", "", url=url, event_types=["*"])
    sending = Deliveries(control_context(live))
    sending.start()
    try:
        tell(live)
        tried = wait_for(
            "it was tried", lambda: [d for d in deliveries(live, webhook) if d["attempts"]]
        )
    finally:
        sending.stop()
    assert tried[0]["status"] == "pending"
    assert "not a public address" in tried[0]["error"]
    assert tried[0]["response_status"] is None
    assert receiver.received == []


def test_the_old_secret_ends_a_day_after_a_rotation_that_keeps_it(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    old = make(hooked, receiver)
    keeping = {"keep_old_secret_active_for_24_hours": True}
    new = ask(hooked, "POST", f"/{old['id']}/rotate_secret", **keeping)
    with transaction(hooked.engine) as session:
        a_day_ago = func.now() - timedelta(days=1)
        session.execute(update(Webhook).values(rotated_at=a_day_ago))
    tell(hooked)
    ended(hooked, old)
    assert receiver.received[-1].unwrap(new["signing_secret"]).type == "fine_tuning.job.queued"
    with pytest.raises(InvalidWebhookSignatureError):
        receiver.received[-1].unwrap(old["signing_secret"])


def test_the_secret_is_shown_when_it_is_made_alone(hooked: Live, receiver: Receiver) -> None:
    webhook = make(hooked, receiver)
    path = f"/{webhook['id']}"
    shown = repr(
        [ask(hooked, "GET", ""), ask(hooked, "GET", path), ask(hooked, "POST", path, name="x")]
    )
    secret = webhook["signing_secret"].removeprefix("whsec_")
    assert secret[:8] not in shown
    assert shown.count(f"whsec_...{secret[-4:]}") == 3
    with transaction(hooked.engine) as session:
        row = session.get_one(Webhook, webhook["id"])
        assert secret[:8] not in repr(vars(row))


def test_gone_disables_at_once_and_the_others_are_told(
    hooked: Live, receiver: Receiver, sending: Deliveries
) -> None:
    webhook = make(hooked, receiver, "fine_tuning.job.failed")
    receiver.answers = [410]
    tell(hooked, EventType.FAILED)
    ended(hooked, webhook)
    other = make(hooked, receiver, "webhook.disabled", path="/other")
    assert ask(hooked, "GET", f"/{webhook['id']}")["status"] == "disabled"
    assert deliveries(hooked, other) == []

    path = f"/{webhook['id']}"
    test = refused(hooked, "POST", f"{path}/test", event_type="fine_tuning.job.failed")
    assert test == (409, "webhook_disabled", None)
    again = ask(hooked, "POST", path, status="enabled")
    assert (again["status"], again["disabled_reason"]) == ("enabled", None)
    receiver.answers = [410]
    tell(hooked, EventType.FAILED)
    ended(hooked, other)
    event = receiver.received[-1].unwrap(other["signing_secret"])
    assert (event.type, event.data.id) == ("webhook.disabled", webhook["id"])
    assert "410" in event.data.reason
    content = json.loads(receiver.received[-1].body)
    assert set(content["data"]) == set(webhooks.sample(EventType.DISABLED))


def test_failing_for_days_disables(hooked: Live, receiver: Receiver, sending: Deliveries) -> None:
    webhook = make(hooked, receiver)
    with transaction(hooked.engine) as session:
        long_ago = func.now() - timedelta(days=6)
        session.execute(update(Webhook).values(failing_since=long_ago))
    receiver.answers = [500]
    tell(hooked)
    (failed,) = ended(hooked, webhook)
    assert failed["status"] == "failed"
    assert failed["error"] == "The receiver answered 500. The webhook was disabled."
    now = ask(hooked, "GET", f"/{webhook['id']}")
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
        tell(hooked)
    wait_for("the slow one was asked", lambda: receiver.received)
    with receiving() as other:
        fast = make(hooked, other)
        tell(hooked)
        ended(hooked, fast)
    assert all(one["attempts"] < 2 for one in deliveries(hooked, slow))
    receiver.hold.set()


def test_two_controls_deliver_each_event_once(hooked: Live, receiver: Receiver) -> None:
    webhook = make(hooked, receiver)
    both = [Deliveries(control_context(hooked)) for _ in range(2)]
    for one in both:
        one.start()
    for _ in range(12):
        tell(hooked)
    log = ended(hooked, webhook, 12)
    for one in both:
        one.stop()
    assert sorted(one.id for one in receiver.received) == sorted(one["id"] for one in log)
    assert len(log) == 12


def test_who_was_overtaken_writes_nothing(hooked: Live, receiver: Receiver) -> None:
    """As after a freeze: the lease ran out while it was sending, and somebody else has sent it."""
    webhook = make(hooked, receiver)
    tell(hooked)
    (sent,) = deliveries(hooked, webhook)
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
    assert refused(hooked, "GET", f"/{webhook['id']}") == (404, "not_found", None)


def test_choices_are_checked(hooked: Live, receiver: Receiver) -> None:
    wrong = refused(hooked, "POST", "", url=receiver.url, event_types=["fine_tuning.job.won"])
    assert wrong[0] == 400
    assert wrong[2] == "event_types.0"
    assert refused(hooked, "POST", "", url=receiver.url, event_types=[])[0] == 400
    for _ in range(20):
        make(hooked, receiver)
    many = refused(hooked, "POST", "", url=receiver.url, event_types=["*"])
    assert many == (409, "too_many_webhooks", None)


def test_the_log_is_kept_for_a_while(hooked: Live, receiver: Receiver) -> None:
    webhook = make(hooked, receiver)
    for _ in range(2):
        tell(hooked)
    ask(hooked, "POST", f"/{webhook['id']}", status="disabled")
    newest, oldest = deliveries(hooked, webhook)
    assert newest["status"] == oldest["status"] == "failed"
    with transaction(hooked.engine) as session:
        session.get_one(Delivery, oldest["id"]).finished_at = func.now() - timedelta(days=31)
    clean.reconcile(control_context(hooked))
    assert [one["id"] for one in deliveries(hooked, webhook)] == [newest["id"]]
    with transaction(hooked.engine) as session:
        webhook_deliveries.forget(session, timedelta())
    assert deliveries(hooked, webhook) == []
