"""What the path asks of tracing: nothing at all by default, OpenTelemetry where an exporter is configured (`otel.py`).

OpenTelemetry is imported only when something is exported: it costs 8 MB and 0.1 s of a start that does not need it.
"""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Protocol

from gateway.actions import Action, Answered, Decision, Result, Rpc, Status, Target, Trace
from gateway.telemetry.trace import format_traceparent


class Span(Protocol):
    """A block that a span covers; an error that leaves it is noted by its kind, never by its text."""

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def came_to(self, state: str) -> None:
        """The state of the case that was waited for."""
        ...

    def decided(self, decision: Decision) -> None:
        """What was decided on the whole action, whose target exists therefore."""
        ...


class Told(NamedTuple):
    """What is known of a request to an upstream once it has ended."""

    result: Result
    took_s: float
    first_chunk_s: float | None = None  # of a stream
    rpc: Rpc | None = None
    answered: Answered | None = None


class CallSpan(Protocol):
    """The span of one request to an upstream: the block ends when the answer begins, the span when it is complete."""

    recording: bool
    traceparent: str

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def ended(self, told: Told) -> None:
        """End the span, so long after it began as `told` says."""
        ...


class Tracing(Protocol):
    """Makes the spans of the path."""

    enabled: bool

    def span(self, name: str, action: Action) -> Span:
        """The span of a block: `action` for the whole, else a stage, which becomes a child of the current one."""
        ...

    def attempt(self, action: Action, case_id: str) -> Span:
        """What was approved is carried out: in the trace of the action that asked."""
        ...

    def waits(self, action: Action, case_id: str, asked: Trace) -> Span:
        """`action` waits for a case, which the action of the trace `asked` opened."""
        ...

    def call(self, action: Action, target: Target) -> CallSpan:
        """A request to an upstream."""
        ...

    def decided(self, decision: Decision) -> None:
        """Put a decision onto the current span."""
        ...

    def ended(self, action: Action, status: Status, result: Result | None) -> None:
        """Put the end of an action onto the current span."""
        ...

    async def aclose(self) -> None:
        """Export what is left, for a few seconds at most."""
        ...


class _Nothing:
    """A span where there is none."""

    __slots__ = ()

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def came_to(self, state: str) -> None:
        return None

    def decided(self, decision: Decision) -> None:
        return None


class NoCall(_Nothing):
    """A request to an upstream that has no span; `traceparent` is what the upstream gets all the same."""

    __slots__ = ("recording", "traceparent")

    def __init__(self, traceparent: str) -> None:
        self.recording = False
        self.traceparent = traceparent

    def ended(self, told: Told) -> None:
        return None


NOTHING = _Nothing()


class NoTracing:
    """No spans. Trace ids still go into records, log lines and upstream requests."""

    enabled = False

    def span(self, name: str, action: Action) -> Span:
        return NOTHING

    def attempt(self, action: Action, case_id: str) -> Span:
        return NOTHING

    def waits(self, action: Action, case_id: str, asked: Trace) -> Span:
        return NOTHING

    def call(self, action: Action, target: Target) -> CallSpan:
        """Continues the caller's trace; no span of ours is claimed to be sampled."""
        return NoCall(format_traceparent(action.trace.trace_id, action.trace.span_id, sampled=False))

    def decided(self, decision: Decision) -> None:
        return None

    def ended(self, action: Action, status: Status, result: Result | None) -> None:
        return None

    async def aclose(self) -> None:
        return None
