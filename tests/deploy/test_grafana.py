"""The dashboard asks for nothing that is not there."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from api.metrics import HttpMetrics
from models.fleet import WAIT_BUCKETS, Line, Snapshot, Waits
from models.workers import Worker

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "luthier.json").read_text())
OPERATING = (ROOT / "docs" / "operating.md").read_text()
OURS = re.compile(r"\b((?:luthier|process)_\w+)(?:\{([^}]*)\})?")
BY = re.compile(r"\b(?:by|without) \(([^)]*)\)")
SCRAPE = {"instance", "job"}
"""Labels that Prometheus adds."""


def exposed() -> dict[str, set[str]]:
    """The labels of each sample that an API process gives on a fleet with something of each."""
    gpu = {"index": 0, "used_bytes": 1, "total_bytes": 2, "utilization": 0.5}
    usage = {"resident_bytes": 1, "available_bytes": 2, "gpus": [gpu]}
    worker = Worker(
        id="worker-a",
        hostname="alpha",
        capabilities=["cuda"],
        details={"device": "cuda:0", "usage": usage},
        last_seen_at=datetime.now(UTC),
    )
    fleet = Snapshot(
        jobs={"queued": 1},
        queue=[Line("text-classification", "cuda", 1, 2.0)],
        waits=Waits([(bound, 1) for bound in WAIT_BUCKETS], 1, 0.1),
        outcomes={"lease_expired": 1},
        step_seconds={"text-classification": 0.5},
        validations=0,
        deliveries={"pending": 1},
        oldest_delivery_seconds=0.0,
        workers=[worker],
        busy=set(),
    )
    metrics = HttpMetrics()
    metrics.observe("GET", "/v1/files", 200, 0.1)
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(metrics.exposition(fleet).decode())
        for sample in family.samples
    }


def queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if "refresh" in v]
    return found + variables


def test_each_query_names_metrics_and_labels_that_exist() -> None:
    known = exposed()
    named = set()
    for query in queries():
        metrics = OURS.findall(query)
        assert metrics, query
        labels = set()
        for name, selector in metrics:
            assert name in known, query
            named.add(name)
            labels |= known[name] | SCRAPE
            assert set(re.findall(r"(\w+)=", selector)) <= labels, query
        for group in BY.findall(query):
            assert set(group.split(", ")) <= labels, query
    assert len(named) > 20


def test_each_legend_names_labels_that_exist() -> None:
    known = exposed()
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            labels: set[str] = set().union(*(known[n] for n, _ in OURS.findall(target["expr"])))
            asked = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert asked <= labels | SCRAPE, panel["title"]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at: dict[str, Any] = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_page_tells_of_every_metric() -> None:
    told = set(re.findall(r"`(luthier_\w+)`", OPERATING))
    ours = {re.sub(r"_(bucket|count|sum)$", "", n) for n in exposed() if n.startswith("luthier_")}
    assert told == {name for name in ours if not name.endswith("_created")}
