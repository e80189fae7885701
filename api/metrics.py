"""What Prometheus reads: this process's requests, and the fleet as the database has it.

Labels are route templates, states, tasks and hosts: sets that stay small. No ids: each would be
a series of its own for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from models.fleet import Snapshot, Waits
from models.workers import Worker

METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class HttpMetrics:
    """This process's requests, by the route's template."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "luthier_http_requests",
            "Requests that have ended; status 0 for those without an answer.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "luthier_http_request_seconds",
            "Time until an answer begins: that of a stream or a download has no other end to be "
            "measured by.",
            ("method", "route"),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "OTHER"
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    def exposition(self, fleet: Snapshot | None) -> bytes:
        """The text format; without the fleet's numbers where the database is away."""
        whole = CollectorRegistry()
        whole.register(_Given(_families(fleet)))
        return generate_latest(self.registry) + generate_latest(whole)


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(fleet: Snapshot | None) -> Iterator[Metric]:
    yield _gauge("database_up", "Whether the database answered this scrape.", fleet is not None)
    if fleet is None:
        return
    yield _gauge("jobs", "Jobs by status.", fleet.jobs, "status")
    lines = {(line.task, line.requires): line for line in fleet.queue}
    yield _gauge(
        "queue_jobs",
        "Queued jobs by task and by what they need of a worker.",
        {key: line.jobs for key, line in lines.items()},
        "task",
        "requires",
    )
    yield _gauge(
        "queue_oldest_seconds",
        "How long the oldest of them has been queued.",
        {key: line.oldest_seconds for key, line in lines.items()},
        "task",
        "requires",
    )
    yield _histogram(fleet.waits)
    yield _counter(fleet.outcomes)
    yield _gauge("step_seconds", "Seconds a step of running jobs.", fleet.step_seconds, "task")
    yield _gauge("validations_pending", "Validations that wait or run.", fleet.validations)
    yield _gauge(
        "webhook_deliveries",
        "Webhook deliveries in the log, by status.",
        fleet.deliveries,
        "status",
    )
    yield _gauge(
        "webhook_overdue_seconds",
        "How long the oldest pending delivery has been due.",
        fleet.oldest_delivery_seconds,
    )
    yield from _of_workers(fleet)


def _of_workers(fleet: Snapshot) -> Iterator[Metric]:
    states: dict[tuple[str, ...], float] = {}
    for worker in fleet.workers:
        device = str(worker.details.get("device", "cpu")).partition(":")[0]
        key = (device, "busy" if worker.id in fleet.busy else "idle")
        states[key] = states.get(key, 0) + 1
    yield _gauge("workers", "Training workers that are alive.", states, "device", "state")
    usages = [(worker.hostname, _usage(worker)) for worker in fleet.workers]
    resident: dict[str, float] = {}
    for host, usage in usages:
        resident[host] = resident.get(host, 0) + usage.get("resident_bytes", 0)
    yield _gauge("worker_memory_bytes", "Of workers and their trainers.", resident, "host")
    free = {host: u["available_bytes"] for host, u in usages if "available_bytes" in u}
    yield _gauge("host_memory_available_bytes", "On a worker's machine.", free, "host")
    gpus = {
        (host, str(gpu["index"])): gpu for host, usage in usages for gpu in usage.get("gpus", [])
    }
    for name, column, about in (
        ("gpu_memory_used_bytes", "used_bytes", "By all processes."),
        ("gpu_memory_total_bytes", "total_bytes", "Of the GPU."),
        ("gpu_utilization_ratio", "utilization", "The share of time in which a kernel ran."),
    ):
        found = {key: gpu[column] for key, gpu in gpus.items() if gpu[column] is not None}
        yield _gauge(name, about, found, "host", "gpu")


def _usage(worker: Worker) -> dict[str, Any]:
    found: dict[str, Any] = worker.details.get("usage") or {}
    return found


def _gauge(name: str, about: str, values: Any, *labels: str) -> GaugeMetricFamily:
    """`values`: one number, or numbers by a label or a tuple of labels."""
    family = GaugeMetricFamily(f"luthier_{name}", about, labels=labels)
    for key, value in values.items() if labels else [((), values)]:
        family.add_metric([key] if isinstance(key, str) else key, float(value))
    return family


def _counter(outcomes: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "luthier_attempts_ended",
        "Attempts that have ended, by how; `lease_expired` are leases that were lost.",
        labels=("outcome",),
    )
    for outcome, count in outcomes.items():
        family.add_metric([outcome], count)
    return family


def _histogram(waits: Waits) -> HistogramMetricFamily:
    return HistogramMetricFamily(
        "luthier_claim_wait_seconds",
        "From queued, or from the end of a back-off, to claimed by a worker.",
        buckets=[*((f"{bound:g}", count) for bound, count in waits.up_to), ("+Inf", waits.count)],
        sum_value=waits.seconds,
    )
