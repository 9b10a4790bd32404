"""Real spans with the OpenTelemetry SDK. Imported only where an exporter is configured.

The span of an action bears the ids of `Action.trace`, so that a record, a log line and a span of one action share
them. Spans are exported by a thread of the SDK's; when its queue is full it drops spans and says so in the log.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from gateway.actions import Action, Decision, Kind, Result, Status, usd_text
from gateway.errors import Refusal
from gateway.telemetry import names
from gateway.telemetry.trace import format_traceparent

MAX_ATTRIBUTE_LENGTH = 256  # names that a client chose are attributes before anybody knows whether they exist
EXPORT_TIMEOUT_S = 5
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


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


def provider(*, service_name: str, version: str, environment: str) -> TracerProvider:
    """A tracer provider; sampling and further resource attributes come from OpenTelemetry's own variables."""
    resource = Resource.create(
        {
            "service.name": service_name,
            "service.version": version,
            "deployment.environment.name": environment,
        },
        schema_url=names.SCHEMA_URL,
    )
    limits = SpanLimits(max_attribute_length=MAX_ATTRIBUTE_LENGTH)
    return TracerProvider(resource=resource, id_generator=GivenIds(), span_limits=limits, shutdown_on_exit=False)


def console_processor() -> SpanProcessor:
    """Spans as JSON lines on standard error, for development."""
    exporter = ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    return BatchSpanProcessor(exporter)


def otlp_processor(endpoint: str | None) -> SpanProcessor:
    """Spans to a collector over HTTP. `endpoint`: its base address; None: as OpenTelemetry's variables say."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    address = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=EXPORT_TIMEOUT_S))


class _CurrentSpan:
    """Makes a span the current one for a block."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token: Token[otel_context.Context] | None = None

    def __enter__(self) -> _CurrentSpan:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            _note_error(self._span, kind, error)
        if self._token is not None:
            otel_context.detach(self._token)
        self._span.end()


class SdkTracing:
    """Spans of the path, named after the GenAI and MCP conventions."""

    enabled = True

    def __init__(
        self, provider: TracerProvider, *, provider_of: Callable[[str], str | None] = lambda _alias: None
    ) -> None:
        self._provider = provider
        self._provider_of = provider_of
        self._ids = provider.id_generator
        self._tracer = provider.get_tracer(names.SCOPE, schema_url=names.SCHEMA_URL)

    def span(self, name: str, action: Action) -> _CurrentSpan:
        """See `Tracing.span`."""
        if name == names.ACTION:
            return _CurrentSpan(self._root(action))
        if name == names.PERFORM:
            return _CurrentSpan(self._upstream(action))
        return _CurrentSpan(self._tracer.start_span(names.SPAN_OF_STAGE.get(name, f"gateway.{name}")))

    def ended(self, action: Action, status: Status, decision: Decision | None, result: Result | None) -> None:
        """See `Tracing.ended`. By now the target is known to exist, so the span may bear its name."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        span.update_name(_name(action, known=True))
        span.set_attribute(names.GATEWAY_STATUS, status.value)
        if decision is not None:
            span.set_attribute(names.GATEWAY_POLICY_VERDICT, decision.effect.value)
            span.set_attribute(names.GATEWAY_POLICY_REVISION, decision.revision)
            span.set_attribute(names.GATEWAY_POLICY_RULES, decision.rules)
        if result is None:
            return
        if action.kind is Kind.MODEL_INVOKE:
            usage = result.cost.usage
            span.set_attribute(names.GEN_AI_USAGE_INPUT_TOKENS, usage.input_tokens)
            span.set_attribute(names.GEN_AI_USAGE_OUTPUT_TOKENS, usage.output_tokens)
            span.set_attribute(names.GEN_AI_USAGE_CACHED_TOKENS, usage.cached_input_tokens)
            span.set_attribute(names.GATEWAY_COST_USD, usd_text(result.cost.nanousd))
            span.set_attribute(names.GATEWAY_COST_ESTIMATED, result.cost.estimated)
        if status is not Status.SUCCEEDED:
            tool_said_so = result.code is None and action.kind is Kind.TOOL_CALL
            span.set_attribute(names.ERROR_TYPE, names.TOOL_ERROR if tool_said_so else result.code or status.value)
            span.set_status(StatusCode.ERROR)

    def outgoing(self, action: Action) -> str:
        """See `Tracing.outgoing`."""
        current = trace.get_current_span().get_span_context()
        if current.is_valid:
            return format_traceparent(
                f"{current.trace_id:032x}", f"{current.span_id:016x}", sampled=current.trace_flags.sampled
            )
        return format_traceparent(action.trace.trace_id, action.trace.span_id, sampled=False)

    async def aclose(self) -> None:
        """See `Tracing.aclose`."""
        await asyncio.to_thread(self._provider.force_flush, EXPORT_TIMEOUT_S * 1000)
        await asyncio.to_thread(self._provider.shutdown)

    def _root(self, action: Action) -> trace.Span:
        traced = action.trace
        ids = self._ids
        if isinstance(ids, GivenIds):
            ids.trace_id = int(traced.trace_id, 16)
            ids.span_id = int(traced.span_id, 16)
        parent = otel_context.Context()
        if traced.parent_id is not None:
            # Whether to keep a trace is ours to decide: an agent that says "not sampled" cannot hide its calls.
            remote = SpanContext(int(traced.trace_id, 16), int(traced.parent_id, 16), True, _SAMPLED)
            parent = trace.set_span_in_context(NonRecordingSpan(remote), parent)
        try:
            return self._tracer.start_span(
                _name(action, known=False), parent, SpanKind.SERVER, self._attributes(action, whole=True)
            )
        finally:
            if isinstance(ids, GivenIds):
                ids.trace_id = ids.span_id = None  # with a parent, no trace id was asked for

    def _upstream(self, action: Action) -> trace.Span:
        return self._tracer.start_span(
            _name(action, known=True),
            kind=SpanKind.CLIENT,
            attributes=self._attributes(action, whole=False),
        )

    def _attributes(self, action: Action, *, whole: bool) -> dict[str, str]:
        agent = action.caller.agent
        attributes: dict[str, str] = {}
        if whole:
            attributes = {
                names.GATEWAY_ACTION_ID: action.id,
                names.GATEWAY_ACTION_KIND: action.kind.value,
                names.GATEWAY_REQUEST_ID: action.request_id,
                names.GATEWAY_TENANT: agent.tenant,
                names.GATEWAY_DOOR: action.door,
                names.GEN_AI_AGENT_ID: agent.id,
                names.GEN_AI_AGENT_VERSION: agent.version,
                names.GEN_AI_CONVERSATION_ID: action.session.id,
            }
        if action.kind is Kind.MODEL_INVOKE:
            attributes[names.GEN_AI_OPERATION_NAME] = names.CHAT
            attributes[names.GEN_AI_REQUEST_MODEL] = action.target
            model_provider = self._provider_of(action.target)
            if model_provider is not None:
                attributes[names.GEN_AI_PROVIDER_NAME] = model_provider
            return attributes
        method = names.METHOD_OF_KIND.get(action.kind)
        if method is not None:
            attributes[names.MCP_METHOD_NAME] = method
        if action.kind is Kind.TOOL_CALL:
            attributes[names.GEN_AI_OPERATION_NAME] = names.EXECUTE_TOOL
            attributes[names.GEN_AI_TOOL_NAME] = _tool(action)
        return attributes


def _name(action: Action, *, known: bool) -> str:
    """`{operation} {target}`; without the target as long as it may be anything a client made up."""
    if action.kind is Kind.MODEL_INVOKE:
        return f"{names.CHAT} {action.target}" if known else names.CHAT
    method = names.METHOD_OF_KIND.get(action.kind, f"gateway.{action.kind.value}")
    return f"{method} {_tool(action)}" if known and action.kind is Kind.TOOL_CALL else method


def _tool(action: Action) -> str:
    server, mark, tool = action.target.partition("__")
    return tool if mark else server


def _note_error(span: trace.Span, kind: type[BaseException], error: BaseException | None) -> None:
    """The kind of an error and the rules of a denial. Its text may quote content, so it stays out."""
    if not span.is_recording():
        return
    if isinstance(error, Refusal):
        span.set_attribute(names.ERROR_TYPE, error.code)
        if error.rules:
            span.set_attribute(names.GATEWAY_POLICY_RULES, error.rules)
    else:
        span.set_attribute(names.ERROR_TYPE, kind.__qualname__)
    span.set_status(StatusCode.ERROR)
