"""Real spans with the OpenTelemetry SDK. Imported only where an exporter is configured.

The span of an action bears the ids of `Action.trace`, so that a record, a log line and a span of one action share
them. Spans are exported by a thread of their own (`outbox.py`).
"""

from __future__ import annotations

import asyncio
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from gateway.actions import Action, Decision, Kind, ModelTarget, Result, Status, Target, Trace, usd_text
from gateway.errors import Refusal
from gateway.telemetry import names
from gateway.telemetry.otel_attributes import (
    Attributes,
    name_of,
    of_agent,
    of_decision,
    of_rpc,
    of_target,
    of_whole,
    tool_of,
)
from gateway.telemetry.otel_sdk import GivenIds
from gateway.telemetry.trace import format_traceparent
from gateway.telemetry.tracing import NOTHING, CallSpan, NoCall, Span, Told

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NS_PER_S = 1_000_000_000


class _CurrentSpan:
    """Makes a span the current one for a block, and ends it with the block."""

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

    def came_to(self, state: str) -> None:
        """See `Span.came_to`."""
        self._span.set_attribute(names.GATEWAY_CASE_STATE, state)

    def decided(self, decision: Decision) -> None:
        """See `Span.decided`."""
        self._span.set_attributes(of_decision(decision))


class _RootSpan(_CurrentSpan):
    """The span of a whole action."""

    __slots__ = ("_action",)

    def __init__(self, span: trace.Span, action: Action) -> None:
        super().__init__(span)
        self._action = action

    def decided(self, decision: Decision) -> None:
        """See `Span.decided`. By now the target is known to exist, so the span may bear its name."""
        if not self._span.is_recording():
            return
        super().decided(decision)
        self._span.update_name(name_of(self._action, known=True))


class _SpanOfCall:
    """The span of a request to an upstream: current until the answer begins, ended once it is complete."""

    __slots__ = ("_span", "_started_ns", "_token", "recording", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token: Token[otel_context.Context] | None = None
        self._started_ns: int | None = getattr(span, "start_time", None)  # of a span that records
        self.recording = span.is_recording()
        self.traceparent = _traceparent(span.get_span_context())

    def __enter__(self) -> _SpanOfCall:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            _note_error(self._span, kind, error)
        if self._token is not None:
            otel_context.detach(self._token)

    def ended(self, told: Told) -> None:
        """See `CallSpan.ended`."""
        span, result, usage = self._span, told.result, told.result.cost.usage
        attributes: Attributes = {}
        if not usage.estimated and (usage.input_tokens or usage.output_tokens):
            attributes = {
                names.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
                names.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
                names.GEN_AI_USAGE_CACHED_TOKENS: usage.cached_input_tokens,
                names.GEN_AI_USAGE_REASONING_TOKENS: usage.reasoning_tokens,
            }
        if told.first_chunk_s is not None:
            attributes[names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = told.first_chunk_s
        if told.answered is not None:
            attributes |= {
                name: value
                for name, value in (
                    (names.GEN_AI_RESPONSE_ID, told.answered.id),
                    (names.GEN_AI_RESPONSE_MODEL, told.answered.model),
                    (names.GEN_AI_RESPONSE_FINISH_REASONS, told.answered.finish_reasons),
                )
                if value
            }
        span.set_attributes(attributes | of_rpc(told.rpc))
        if result.status is not Status.SUCCEEDED:
            span.set_attribute(names.ERROR_TYPE, result.code or names.TOOL_ERROR)
            span.set_status(StatusCode.ERROR)
        span.end(None if self._started_ns is None else self._started_ns + int(told.took_s * _NS_PER_S))


class SdkTracing:
    """Spans of the path, named after the GenAI and MCP conventions."""

    enabled = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._ids = provider.id_generator
        self._tracer = provider.get_tracer(names.SCOPE, schema_url=names.SCHEMA_URL)

    def span(self, name: str, action: Action) -> Span:
        """See `Tracing.span`."""
        if name == names.ACTION:
            return _RootSpan(self._root(action), action)
        if not trace.get_current_span().is_recording():  # the whole was not sampled, so its parts cost nothing either
            return NOTHING
        of_stage = names.SPAN_OF_STAGE.get(name, names.OTHER_SPAN + name)
        about: Attributes = {}
        if action.kind is Kind.TOOL_PROPOSE:  # it has no span of its own
            about = {names.GATEWAY_ACTION_ID: action.id, **of_target(action)}
        return _CurrentSpan(self._tracer.start_span(of_stage, attributes=about))

    def attempt(self, action: Action, case_id: str) -> _CurrentSpan:
        """See `Tracing.attempt`. Where a waiting caller set it going, that one is linked."""
        current = trace.get_current_span().get_span_context()
        span = self._tracer.start_span(
            f"{names.EXECUTE_TOOL} {tool_of(action)}",
            _within(action.trace.trace_id, action.trace.span_id),
            SpanKind.INTERNAL,
            of_whole(action) | {names.GATEWAY_CASE_ID: case_id},
            [Link(current)] if current.is_valid else None,
        )
        return _CurrentSpan(span)

    def waits(self, action: Action, case_id: str, asked: Trace) -> Span:
        """See `Tracing.waits`."""
        if not trace.get_current_span().is_recording():
            return NOTHING
        other = asked.span_id != action.trace.span_id
        links = [Link(_remote(asked.trace_id, asked.span_id))] if other else None
        about = {names.GATEWAY_CASE_ID: case_id}
        return _CurrentSpan(self._tracer.start_span(names.WAIT_SPAN, attributes=about, links=links))

    def call(self, action: Action, target: Target) -> CallSpan:
        """See `Tracing.call`."""
        current = trace.get_current_span()
        if not current.is_recording():
            return NoCall(_traceparent(current.get_span_context()))
        about: Attributes
        if isinstance(target, ModelTarget):
            name = f"{names.CHAT} {target.model}"
            about = {
                names.GEN_AI_OPERATION_NAME: names.CHAT,
                names.GEN_AI_PROVIDER_NAME: target.provider,
                names.GEN_AI_REQUEST_MODEL: target.model,
                names.GEN_AI_REQUEST_STREAM: action.stream,
                names.GATEWAY_MODEL_ALIAS: target.alias,
            }
        else:
            name = f"{names.METHOD_OF_KIND[Kind.TOOL_CALL]} {target.tool}"
            about = {
                names.GEN_AI_OPERATION_NAME: names.EXECUTE_TOOL,
                names.MCP_METHOD_NAME: names.METHOD_OF_KIND[Kind.TOOL_CALL],
                names.GEN_AI_TOOL_NAME: target.tool,
                names.GEN_AI_TOOL_TYPE: names.TOOL_TYPE,
                names.GATEWAY_TOOL_SERVER: target.server,
            }
        about |= of_agent(action)
        return _SpanOfCall(self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=about))

    def decided(self, decision: Decision) -> None:
        """See `Tracing.decided`."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes(of_decision(decision))

    def ended(self, action: Action, status: Status, result: Result | None) -> None:
        """See `Tracing.ended`."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        span.set_attribute(names.GATEWAY_STATUS, status.value)
        if result is None:
            return
        if action.kind is Kind.MODEL_INVOKE:
            span.set_attribute(names.GATEWAY_COST_USD, usd_text(result.cost.nanousd))
            span.set_attribute(names.GATEWAY_COST_ESTIMATED, result.cost.estimated)
        if status is not Status.SUCCEEDED:
            tool_said_so = result.code is None and action.kind is Kind.TOOL_CALL
            span.set_attribute(names.ERROR_TYPE, names.TOOL_ERROR if tool_said_so else result.code or status.value)
            span.set_status(StatusCode.ERROR)

    async def aclose(self) -> None:
        """See `Tracing.aclose`."""
        await asyncio.to_thread(self._provider.shutdown)

    def _root(self, action: Action) -> trace.Span:
        traced = action.trace
        ids = self._ids
        if isinstance(ids, GivenIds):
            ids.trace_id = int(traced.trace_id, 16)
            ids.span_id = int(traced.span_id, 16)
        parent = otel_context.Context()
        if traced.parent_id is not None:
            parent = _within(traced.trace_id, traced.parent_id, traced.state)
        try:
            return self._tracer.start_span(
                name_of(action, known=False),
                parent,
                SpanKind.SERVER,
                of_whole(action) | of_rpc(action.rpc),
                None if traced.link is None else [Link(_remote(*traced.link))],
            )
        finally:
            if isinstance(ids, GivenIds):
                ids.trace_id = ids.span_id = None  # with a parent, no trace id was asked for


# ---------------------------------------------------------------- contexts


def _remote(trace_id: str, span_id: str, state: str = "") -> SpanContext:
    """Somebody's span. Its flag says sampled, whatever it said: to keep a trace is ours to decide (`otel_sdk`)."""
    told = TraceState.from_header([state]) if state else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, _SAMPLED, told)


def _traceparent(of: SpanContext) -> str:
    return format_traceparent(f"{of.trace_id:032x}", f"{of.span_id:016x}", sampled=of.trace_flags.sampled)


def _within(trace_id: str, span_id: str, state: str = "") -> otel_context.Context:
    return trace.set_span_in_context(NonRecordingSpan(_remote(trace_id, span_id, state)), otel_context.Context())


def _note_error(span: trace.Span, kind: type[BaseException], error: BaseException | None) -> None:
    """The kind of an error and the rules of a denial. Its text may quote content, so it stays out."""
    if not span.is_recording():
        return
    if isinstance(error, Refusal):
        span.set_attribute(names.ERROR_TYPE, error.code)
        if error.rules:
            span.set_attribute(names.GATEWAY_POLICY_RULES, error.rules)
        rpc_status = error.detail.get("upstream_code", names.RPC_STATUS_OF_CODE.get(error.code))
        if rpc_status is not None:
            span.set_attribute(names.RPC_STATUS_CODE, rpc_status)
    else:
        span.set_attribute(names.ERROR_TYPE, kind.__qualname__)
    span.set_status(StatusCode.ERROR)
