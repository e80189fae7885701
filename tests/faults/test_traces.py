"""One trace of a job over the real processes; and a collector that goes away harms nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from models.state import TERMINAL
from tests.faults.fleet import running_fleet
from tests.faults.processes import wait_for

Spans = list[tuple[str, Any]]
"""Each with the name of the service that it is of."""


@contextmanager
def collecting() -> Iterator[tuple[str, Spans]]:
    """A collector's URL, and the spans that have come."""
    spans: Spans = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    spans.extend((about["service.name"], span) for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not among the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_job_is_one_trace_from_submit_to_publish(tmp_path: Path, tiny_model: Path) -> None:
    with collecting() as (url, spans):
        quick = {"LUTHIER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        with running_fleet(tmp_path, tiny_model, **quick) as fleet:
            fleet.start_api()
            fleet.start_worker()
            job_id = fleet.submit(fleet.upload(), max_steps=4, checkpoint_every=2)
            fleet.start("control")  # Not before: the check is to be what the job waits for.
            assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"

            def whole() -> dict[str, tuple[str, Any]] | None:
                found = {span.name: (service, span) for service, span in spans}
                return found if {"attempt", "admit"} <= found.keys() else None

            found = wait_for("the spans of attempt and admission have come", whole)
            submit = "POST /v1/fine_tuning/jobs"
            assert found[submit][0] == "luthier-api"
            trace = found[submit][1].trace_id
            ours = {span.name: span for _, span in spans if span.trace_id == trace}
            waits = {"validate", "admit"}
            parts = {"claim", "prepare", "train", "publish", "publish checkpoint"}
            assert set(ours) == {submit, "attempt", *waits, *parts}
            assert all(found[name][0] == "luthier-control" for name in waits)
            assert all(found[name][0] == "luthier-worker" for name in parts)
            for name in ("attempt", *waits):
                assert ours[name].parent_span_id == ours[submit].span_id
            assert {ours[name].parent_span_id for name in parts} == {ours["attempt"].span_id}
            assert ours["claim"].end_time_unix_nano <= ours["train"].start_time_unix_nano
            assert ours["train"].end_time_unix_nano <= ours["publish"].end_time_unix_nano


@pytest.mark.slow
def test_a_collector_that_is_away_harms_no_job(tmp_path: Path, tiny_model: Path) -> None:
    with collecting() as (url, _):
        pass
    with running_fleet(tmp_path, tiny_model, LUTHIER_OTLP_ENDPOINT=url) as fleet:
        fleet.start_api()
        control = fleet.start("control")
        worker = fleet.start_worker()
        job_id = fleet.submit(fleet.upload(), max_steps=4)
        assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
        assert fleet.end(worker, seconds=30) == 0
        assert fleet.end(control, seconds=30) == 0
