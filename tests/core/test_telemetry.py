"""Spans: below what, how long, and what is not in them."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.telemetry import Tracing


@pytest.fixture
def made() -> tuple[Tracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider), exporter


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_trace_goes_on_in_another_process(made: tuple[Tracing, InMemorySpanExporter]) -> None:
    tracing, exporter = made
    with tracing.span("submit"):
        kept = tracing.current()
    assert kept is not None
    began = time.time_ns() - 5_000_000_000
    with tracing.span("attempt", parent=kept, began_ns=began, job_id="ftjob-1"):
        with tracing.span("train"):
            pass
        inside = tracing.current()
    with tracing.span("publish checkpoint", parent=inside):
        pass
    spans = named(exporter)
    traces = {span.context.trace_id for span in spans.values() if span.context}
    assert len(traces) == 1
    parents = {name: span.parent and span.parent.span_id for name, span in spans.items()}
    own = {name: span.context.span_id for name, span in spans.items() if span.context}
    assert parents == {
        "submit": None,
        "attempt": own["submit"],
        "train": own["attempt"],
        "publish checkpoint": own["attempt"],
    }
    assert spans["attempt"].start_time == began
    assert dict(spans["attempt"].attributes or {}) == {"luthier.job_id": "ftjob-1"}


@pytest.mark.parametrize("parent", ["", "nonsense", "00-0-0-01"])
def test_a_parent_that_is_none_begins_a_trace(
    made: tuple[Tracing, InMemorySpanExporter], parent: str
) -> None:
    """A client may send anything as `traceparent`."""
    tracing, exporter = made
    with tracing.span("submit", parent=parent):
        pass
    assert named(exporter)["submit"].parent is None


def test_an_error_is_marked_and_its_text_left_out(
    made: tuple[Tracing, InMemorySpanExporter],
) -> None:
    tracing, exporter = made
    with pytest.raises(ValueError), tracing.span("train"):
        raise ValueError("a row of the user's")
    assert "user's" not in exporter.get_finished_spans()[0].to_json()
    assert not named(exporter)["train"].status.is_ok


def test_nothing_is_imported_or_made_unless_it_is_asked_for() -> None:
    code = """
import sys
from core.settings import Settings
from core.telemetry import Tracing
tracing = Tracing.open(Settings(), "api")
with tracing.span("submit", parent="00-1-1-01") as span:
    assert span is None
    assert tracing.current() is None
tracing.close()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
