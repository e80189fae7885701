"""`GET /metrics` as Prometheus reads it, over jobs that wait, run, were lost and ended."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, update

from models import leases, workers
from models.db import transaction
from models.jobs import Job
from models.state import Status
from models.webhooks import EventType, Webhook, announce
from tests.api.conftest import Live, running, settings_for
from tests.api.rows import make_running_job
from tests.rows import claim, make_job, read_job
from worker.usage import parse, usage

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(live: Live) -> Samples:
    token = live.settings.scrape_token().decode()
    answer = httpx.get(f"{live.url}/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"luthier_{name}", frozenset(labels.items())]


@pytest.fixture(scope="module")
def fleet(live: Live) -> Iterator[Samples]:
    """A scrape of a fleet with something of each kind."""
    webhook = {"url": "https://example.com/", "event_types": ["fine_tuning.job.failed"]}
    with live.http() as http:
        assert http.post("/webhook_endpoints", json=webhook).is_success
    make_running_job(live)
    lost = claim_one(live, "worker-b")
    with transaction(live.engine) as session:
        session.execute(
            update(Job)
            .where(Job.status == Status.RUNNING)
            .values(speed={"steps_per_second": 4.0}, task="text-classification")
        )
        leases.lose(session, leases.hold(session, lost.id, lost.fence), "lease_expired", "Gone.", 9)
    make_job(live.engine, live.project_id, task="text-classification", requires=["cuda", "big"])
    with transaction(live.engine) as session:
        announce(session, live.project_id, EventType.FAILED, {"id": "ftjob-x"})
        session.execute(
            update(Job).where(Job.requires.contains(["cuda"])).values(queued_at=func.now() - HOUR)
        )
        details = {"device": "cpu", "usage": {**usage("cpu"), "gpus": parse(SMI)}}
        workers.report(session, "worker-a", "alpha", ["cpu"], details)
        workers.report(session, "worker-c", "alpha", ["cpu", "cuda"], {"device": "cuda:0"})
    yield scrape(live)
    with transaction(live.engine) as session:
        session.query(Webhook).update({"status": "disabled"})


HOUR = func.make_interval(0, 0, 0, 0, 1)
SMI = "0, 1024, 81559, 50\n1, 0, 81559, [N/A]\n"


def claim_one(live: Live, worker: str, priority: int = 90) -> Job:
    make_job(live.engine, live.project_id, priority=priority)
    return claim(live.engine, worker)


def test_what_waits(fleet: Samples) -> None:
    line = {"task": "text-classification", "requires": "big,cuda"}
    assert value(fleet, "queue_jobs", **line) == 1
    assert 3599 < value(fleet, "queue_oldest_seconds", **line) < 3700
    assert value(fleet, "jobs", status="queued") == 2
    assert value(fleet, "jobs", status="running") == 1
    assert value(fleet, "jobs", status="paused") == 0


def test_claims_and_their_waits(fleet: Samples) -> None:
    assert value(fleet, "claim_wait_seconds_count") == 2
    assert 0 <= value(fleet, "claim_wait_seconds_sum") < 60
    bounds = [value(fleet, "claim_wait_seconds_bucket", le=le) for le in ("0.1", "60", "+Inf")]
    assert bounds == sorted(bounds)
    assert bounds[-2:] == [2, 2]


def test_lost_leases_and_steps(fleet: Samples) -> None:
    assert value(fleet, "attempts_ended_total", outcome="lease_expired") == 1
    assert value(fleet, "step_seconds", task="text-classification") == 0.25


def test_workers_and_their_machines(fleet: Samples) -> None:
    assert value(fleet, "workers", device="cpu", state="busy") == 1
    assert value(fleet, "workers", device="cuda", state="idle") == 1
    assert value(fleet, "worker_memory_bytes", host="alpha") > 1_000_000
    assert value(fleet, "host_memory_available_bytes", host="alpha") > 1_000_000
    assert value(fleet, "gpu_memory_used_bytes", host="alpha", gpu="0") == 1024**3
    assert value(fleet, "gpu_utilization_ratio", host="alpha", gpu="0") == 0.5
    assert ("luthier_gpu_utilization_ratio", frozenset({("host", "alpha"), ("gpu", "1")})) not in (
        fleet
    )


def test_webhooks(fleet: Samples) -> None:
    assert value(fleet, "webhook_deliveries", status="pending") == 1
    assert value(fleet, "webhook_overdue_seconds") >= 0
    assert value(fleet, "database_up") == 1


def test_requests_are_counted_by_route_and_not_by_id(live: Live) -> None:
    job_id = make_job(live.engine, live.project_id)
    with live.http() as http:
        for path in (f"/fine_tuning/jobs/{job_id}", "/fine_tuning/jobs/ftjob-none"):
            http.get(path)
        http.get("/no/such/route")
    samples = scrape(live)
    route = {"method": "GET", "route": "/v1/fine_tuning/jobs/{job_id}"}
    assert value(samples, "http_requests_total", status="200", **route) == 1
    assert value(samples, "http_requests_total", status="404", **route) == 1
    assert value(samples, "http_request_seconds_count", **route) == 2
    nowhere = {"method": "GET", "route": "unmatched", "status": "404"}
    assert value(samples, "http_requests_total", **nowhere) == 1
    assert not [labels for _, labels in samples if any(job_id in text for _, text in labels)]


@pytest.mark.parametrize("which", ["a key", "nothing", "another token"])
def test_only_the_operators_token_opens_them(live: Live, which: str) -> None:
    """A project's key sees that project alone; these numbers are of all of them."""
    given = {"a key": live.key, "nothing": "", "another token": "0" * 64}[which]
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    assert httpx.get(f"{live.url}/metrics", headers=headers).status_code == 401


def test_a_token_that_is_set(live: Live) -> None:
    settings = settings_for(
        live.settings.data_dir / "other",
        "postgresql://nobody@127.0.0.1:9/none",
        str(live.settings.redis_url),
        metrics_token="set-by-hand",
    )
    with running(settings) as url:
        samples = scrape(Live(**(vars(live) | {"url": url, "settings": settings})))
    # And its database is away: what the process knows itself is told all the same.
    assert value(samples, "database_up") == 0
    assert not [name for name, _ in samples if name == "luthier_jobs"]
    assert not (settings.data_dir / "metrics_token").exists()


def test_the_wait_of_a_job_that_was_handed_back_begins_anew(live: Live) -> None:
    job = claim_one(live, "worker-d", priority=99)
    with transaction(live.engine) as session:
        session.execute(update(Job).values(queued_at=func.now() - HOUR))
        leases.give_back(session, job.id, job.fence, "Again.")
    before = value(scrape(live), "claim_wait_seconds_sum")
    assert claim(live.engine, "worker-d").id == job.id
    assert value(scrape(live), "claim_wait_seconds_sum") - before < 60
    assert read_job(live.engine, job.id).attempts == 2
