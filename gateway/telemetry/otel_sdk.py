"""The OpenTelemetry SDK as the gateway uses it: the resource, the sampler, ids that were given, the tracer provider.

Sampling is ours to decide: a caller's own flag is not followed, so that an agent can neither hide its calls nor have
all of them kept. Ratios count by the trace id, so that replicas and later tasks decide alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from opentelemetry import context as otel_context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from gateway.telemetry import names
from gateway.telemetry.outbox import Outbox

MAX_ATTRIBUTE_LENGTH = 256  # names that a client chose are attributes before anybody knows whether they exist


class GivenIds(RandomIdGenerator):
    """Random ids, except for the next span where its ids were given."""

    def __init__(self) -> None:
        self.trace_id: int | None = None
        self.span_id: int | None = None

    def generate_trace_id(self) -> int:
        given, self.trace_id = self.trace_id, None
        return super().generate_trace_id() if given is None else given

    def generate_span_id(self) -> int:
        given, self.span_id = self.span_id, None
        return super().generate_span_id() if given is None else given


def resource(*, service_name: str, version: str, environment: str, replica_id: str) -> Resource:
    """Who we are; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` go before what we say ourselves."""
    ours: dict[str, str] = {
        names.SERVICE_NAME: service_name,
        names.SERVICE_VERSION: version,
        names.SERVICE_INSTANCE_ID: replica_id,
        names.DEPLOYMENT_ENVIRONMENT: environment,
    }
    told = {name: value for name, value in ours.items() if value}
    return Resource.create(told, schema_url=names.SCHEMA_URL).merge(OTELResourceDetector().detect())


def sampler(name: str, ratio: float) -> Sampler:
    """`name` is one of `OTEL_TRACES_SAMPLER`, `ratio` its argument."""
    of_roots: Sampler = ALWAYS_ON
    if name.endswith("always_off"):
        of_roots = ALWAYS_OFF
    elif name.endswith("traceidratio"):
        of_roots = TraceIdRatioBased(ratio)
    return ParentBased(of_roots, remote_parent_sampled=of_roots, remote_parent_not_sampled=of_roots)


def provider(of: Resource, sampler: Sampler = ALWAYS_ON) -> TracerProvider:
    """A tracer provider without a processor."""
    limits = SpanLimits(max_attribute_length=MAX_ATTRIBUTE_LENGTH)
    return TracerProvider(
        resource=of, sampler=sampler, id_generator=GivenIds(), span_limits=limits, shutdown_on_exit=False
    )


class SpansToOutbox(SpanProcessor):
    """Hands ended spans over to a thread that exports them; never waits. `close` is called once that has ended."""

    def __init__(self, outbox: Outbox[ReadableSpan], close: Callable[[], None] = lambda: None) -> None:
        self._outbox = outbox
        self._close = close

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        """Nothing is to be done with a span that begins."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.context.trace_flags.sampled:
            self._outbox.put(span)

    def shutdown(self) -> None:
        self._outbox.close()
        self._close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._outbox.flush(timeout_millis / 1000)


def to_console() -> Callable[[Sequence[ReadableSpan]], bool]:
    """Spans as JSON lines on standard error, for development."""
    exporter = ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")

    def write(spans: Sequence[ReadableSpan]) -> bool:
        exporter.export(spans)
        return True

    return write
