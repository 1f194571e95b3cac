"""Traces of operations, for a collector that speaks OTLP over HTTP; none are made unless one is configured.

docket makes a span of each task, and `Store.once` one of each step; an operation is the spans with its `stoker.op`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from bot.settings import SettingsError


@contextmanager
def traced(endpoint: str) -> Iterator[None]:
    """Export spans to the collector at this base address until the end of the block; "" makes none."""
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
        raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT is set; install stoker[otel] to have traces.") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "stoker"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
