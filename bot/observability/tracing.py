"""Exports traces of operations to an OTLP collector over HTTP, if one is configured.

docket creates a span for each task, and `StepLedger.once` creates a span for each step. All spans of an operation have its
id as `stoker.op`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bot.observability.logs import cleaned
from bot.settings.config import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import AttributeValue


@contextmanager
def traced(endpoint: str) -> Iterator[None]:
    """Export spans to the collector at this base URL inside the block; "" exports nothing."""
    if not endpoint:
        yield
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT is set; install stoker[otel] to get traces.") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "stoker"}))
    provider.add_span_processor(BatchSpanProcessor(_redacting(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces"))))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def _redacting(exporter: "SpanExporter") -> "SpanExporter":
    """Wrap the exporter, so that it receives spans without secrets in names, attributes and exceptions."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Redacting(SpanExporter):
        def export(self, spans: "Sequence[ReadableSpan]") -> SpanExportResult:
            return exporter.export([redacted(span) for span in spans])

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Redacting()


def redacted(span: "ReadableSpan") -> "ReadableSpan":
    """Return the span without secrets in its name, attributes, events and status."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Status

    status = span.status
    return ReadableSpan(
        name=cleaned(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_cleaned(span.attributes),
        events=[Event(cleaned(event.name), _cleaned(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(status.status_code, cleaned(status.description)) if status.description else status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _cleaned(attributes: "Mapping[str, AttributeValue] | None") -> "dict[str, AttributeValue]":
    result: dict[str, AttributeValue] = {}
    for name, value in (attributes or {}).items():
        if isinstance(value, str):
            result[name] = cleaned(value)
        elif isinstance(value, Sequence):
            result[name] = [cleaned(str(item)) for item in value]
        else:
            result[name] = value
    return result
