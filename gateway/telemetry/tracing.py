"""Spans around the path: nothing at all by default, OpenTelemetry where an exporter is configured.

OpenTelemetry is imported only when spans are wanted: it costs 8 MB and 0.1 s of a start that does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Literal, Protocol

from gateway.actions import Action, Decision, Result, Status
from gateway.errors import Refusal
from gateway.telemetry.trace import format_traceparent

Exporter = Literal["none", "console", "otlp"]


class Span(Protocol):
    """A block that a span covers; an error that leaves it is noted by its kind, never by its text."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracing(Protocol):
    """Makes the spans of the path."""

    enabled: bool

    def span(self, name: str, action: Action) -> Span:
        """The span of a block: `action` for the whole, else a stage, which becomes a child of the current one."""
        ...

    def ended(self, action: Action, status: Status, decision: Decision | None, result: Result | None) -> None:
        """Put the end of an action onto the current span."""
        ...

    def outgoing(self, action: Action) -> str:
        """The `traceparent` for a request that the gateway makes for this action."""
        ...

    async def aclose(self) -> None:
        """Export what is left, for a few seconds at most."""
        ...


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_NOTHING = _Nothing()


class NoTracing:
    """No spans. Trace ids still go into records, log lines and upstream requests."""

    enabled = False

    def span(self, name: str, action: Action) -> Span:
        return _NOTHING

    def ended(self, action: Action, status: Status, decision: Decision | None, result: Result | None) -> None:
        return None

    def outgoing(self, action: Action) -> str:
        """Continues the caller's trace; no span of ours is claimed to be sampled."""
        return format_traceparent(action.trace.trace_id, action.trace.span_id, sampled=False)

    async def aclose(self) -> None:
        return None


def start_tracing(
    exporter: Exporter | None = None,
    *,
    otlp_endpoint: str | None = None,
    service_name: str = "agent-governance-gateway",
    version: str = "",
    environment: str = "",
    provider_of: Callable[[str], str | None] = lambda _alias: None,
) -> Tracing:
    """Tracing as configured. Without `exporter`, an endpoint means `otlp` and its absence `none`.

    `otlp_endpoint` is the base address of a collector (OTLP over HTTP with protobuf, usually port 4318); without
    it OpenTelemetry's own `OTEL_EXPORTER_OTLP_*` variables and default count. `provider_of` names the provider of
    a model alias. Raises Refusal `invalid_configuration` if what the exporter needs is not installed.
    """
    chosen = exporter or ("otlp" if otlp_endpoint else "none")
    if chosen == "none":
        return NoTracing()
    try:
        from gateway.telemetry.otel import SdkTracing, console_processor, otlp_processor, provider

        processor = console_processor() if chosen == "console" else otlp_processor(otlp_endpoint)
    except ModuleNotFoundError as error:
        raise Refusal(
            "invalid_configuration",
            f"Spans are to be exported ({chosen}), but {error.name} is not installed; install "
            "opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http, or unset the exporter.",
        ) from error
    made = provider(service_name=service_name, version=version, environment=environment)
    made.add_span_processor(processor)
    return SdkTracing(made, provider_of=provider_of)
