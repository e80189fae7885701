"""What control workers add to a job's trace: the check that it waited for, and its admission."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.telemetry import Tracing
from models.db import transaction
from models.jobs import Job
from tests.api import control
from tests.api.conftest import Live
from tests.rows import read_job
from worker.admission import admit_waiting
from worker.context import Context
from worker.validation import validate


class Traced:
    """A control worker whose spans stay here."""

    def __init__(self, live: Live) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._live = live
        self.context: Context = replace(control.context_of(live), tracing=Tracing(provider))

    def run(self, content: bytes | str) -> tuple[Job, dict[str, ReadableSpan]]:
        """Submit a job on new data, or on that of a file's id, do what it waits for, and tell the
        spans of its trace that end up below its submit."""
        self._exporter.clear()
        file_id = content if isinstance(content, str) else self._live.upload(content)
        with self._live.http() as http, self.context.tracing.span("submit"):
            body = {"model": "all-MiniLM-L6-v2", "training_file": file_id}
            made = http.post("/fine_tuning/jobs", json=body).json()
            with transaction(self._live.engine) as session:
                job = session.get_one(Job, made["id"])
                job.traceparent = self.context.tracing.current()
        assert job.validation_id is not None
        validate(self.context, job.validation_id)
        admit_waiting(self.context, job.validation_id)
        (submit, *others) = sorted(
            self._exporter.get_finished_spans(), key=lambda span: span.name != "submit"
        )
        assert submit.context
        parents = {span.parent and span.parent.span_id for span in others}
        assert parents == {submit.context.span_id}
        return read_job(self._live.engine, job.id), {span.name: span for span in others}


@pytest.fixture
def traced(live: Live) -> Traced:
    return Traced(live)


@pytest.mark.parametrize(
    ("content", "status"), [(b"text,label\nyes,a\nno,b\n", "queued"), (b"text\nyes\n", "failed")]
)
def test_a_job_waits_for_the_check_of_its_files(
    traced: Traced, content: bytes, status: str
) -> None:
    job, spans = traced.run(content)
    assert job.status == status, job.error
    assert spans.keys() == {"validate", "admit"}
    named = {"luthier.job_id": job.id}
    assert dict(spans["validate"].attributes or {}) == named | {
        "luthier.validation_id": job.validation_id
    }
    assert dict(spans["admit"].attributes or {}) == named | {"luthier.fence": job.fence}
    began, ended = spans["validate"].start_time or 0, spans["validate"].end_time or 0
    assert job.created_at.timestamp() - 1e-3 <= began / 1e9 < ended / 1e9
    assert ended <= (spans["admit"].start_time or 0)


def test_what_was_checked_before_is_none_of_a_jobs_waiting(traced: Traced, live: Live) -> None:
    file_id = live.upload(b"text,label\nlong,a\nbefore,b\n")
    control.check_file(live, file_id)
    job, spans = traced.run(file_id)
    assert job.status == "queued", job.error
    assert spans.keys() == {"admit"}
