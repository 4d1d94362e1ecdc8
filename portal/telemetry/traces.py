"""OpenTelemetry spans, enabled by its environment variables.

A span contains a route or a host, but never a URL, a query, a header or the text of an exception.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_SCOPE = "portal"
_MISSING = (
    "OpenTelemetry is enabled (OTEL_EXPORTER_OTLP_ENDPOINT), but not installed. Run: pip install"
    " 'mcp-portal[otel]'"
)
_tracer = trace.get_tracer(_SCOPE)
_incoming = TraceContextTextMapPropagator()


def begin(environment: Mapping[str, str]) -> str | None:
    """Start sending spans, and return an error message or None. Call it after a fork."""
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    off = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if not endpoint or off:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return _MISSING

    class OwnSpans(BatchSpanProcessor):
        """Exports only the portal's spans, since those of the MCP SDK contain exception texts."""

        def on_end(self, span: ReadableSpan) -> None:
            if span.instrumentation_scope is not None and span.instrumentation_scope.name == _SCOPE:
                super().on_end(span)

    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    provider = TracerProvider(
        resource=Resource.create({} if named else {"service.name": "mcp-portal"})
    )
    provider.add_span_processor(OwnSpans(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    # No trace IDs are sent to upstreams, since these could link calls across servers.
    propagate.set_global_textmap(CompositePropagator([]))
    return None


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: str | None = None, **attributes: str
) -> Iterator[Span]:
    """Provide a span; `parent` is the `traceparent` of a trusted proxy.

    Underscores in `attributes` become dots. For an exception, only its class is recorded.
    """
    told = {name.replace("_", "."): value for name, value in attributes.items()}
    context = _incoming.extract({"traceparent": parent}) if parent else None
    with _tracer.start_as_current_span(
        name, context, kind, told, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(Status(StatusCode.ERROR))
            raise


__all__ = ["SpanKind", "begin", "span"]
