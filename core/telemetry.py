"""Traces by OpenTelemetry: one of each job, from the call that submits it to its published model.

They are made only where `LUTHIER_OTLP_ENDPOINT`, or OpenTelemetry's own
`OTEL_EXPORTER_OTLP_ENDPOINT`, names a collector; else nothing of the library is imported, and it
need not be there. Spans leave in the background: a collector that is slow or away costs them, and
nothing else. What OpenTelemetry reads from `OTEL_*` (headers, sampler) holds here as everywhere.

A trace goes from one process to the next as `traceparent` (https://www.w3.org/TR/trace-context/),
which is kept with the job's row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span


class Tracing:
    """Makes a process's spans; without a provider, none."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("luthier") if provider is not None else None

    @classmethod
    def open(cls, settings: Settings, process: str) -> Tracing:
        """As the settings say. `process` is `api`, `control` or `worker`."""
        if not settings.otlp_endpoint:
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SystemExit(
                "Traces are asked for by LUTHIER_OTLP_ENDPOINT, but OpenTelemetry is not "
                "installed. Install luthier-server[otel], or take the setting away."
            ) from error
        about = {"service.name": f"luthier-{process}", "service.version": version("luthier-server")}
        provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        endpoint = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider)

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        began_ns: int | None = None,
        **attributes: str | int,
    ) -> Iterator[Span | None]:
        """A span around this block, below `parent` or below the one that is open here.

        `began_ns` sets its beginning back, by the wall clock. An exception that passes is marked,
        but not written down: its text may hold what is the user's.
        """
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import Status, StatusCode

        with self._tracer.start_as_current_span(
            name,
            _below(parent),
            attributes=_named(attributes),
            start_time=began_ns,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def past(
        self,
        name: str,
        *,
        parent: str | None,
        began: datetime,
        ended: datetime,
        **attributes: str | int,
    ) -> None:
        """A span of what is over, known by the times in the database."""
        if self._tracer is not None:
            span = self._tracer.start_span(
                name, _below(parent), attributes=_named(attributes), start_time=_ns(began)
            )
            span.end(_ns(ended))

    def current(self) -> str | None:
        """The open span as `traceparent`, for others to go on below it."""
        if self._tracer is None:
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent")

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def _below(parent: str | None) -> Context | None:
    """The context of a `traceparent`; None is the one that is open here."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if parent is None:
        return None
    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"luthier.{key}": value for key, value in attributes.items()}


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6) * 1000
