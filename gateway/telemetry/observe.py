"""What the governor calls: one object that times the path, counts ends and refusals, and opens spans."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import Protocol

from gateway.actions import Action, Decision, Effect, Kind, Result, Status
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.telemetry import names
from gateway.telemetry.logs import acting
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import NoTracing, Span, Tracing

_EFFECT_OF_CODE = {
    "denied_by_policy": Effect.DENY.value,
    "unknown_tool": Effect.DENY.value,
    **dict.fromkeys(("approval_required", "approval_denied", "approval_expired"), Effect.ESCALATE.value),
}


class _Observes(Protocol):
    def observe(self, amount: float) -> None: ...


class _Block:
    """Times a block; carries its span; for the whole action, binds it to the log lines inside."""

    __slots__ = ("_action", "_histogram", "_now_s", "_span", "_started_s", "_token")

    def __init__(
        self, histogram: _Observes | None, now_s: Callable[[], float], span: Span | None, action: Action | None
    ) -> None:
        self._histogram = histogram
        self._now_s = now_s
        self._span = span
        self._action = action
        self._token: Token[Action | None] | None = None
        self._started_s = 0.0

    def __enter__(self) -> _Block:
        if self._action is not None:
            self._token = acting.set(self._action)
        if self._span is not None:
            self._span.__enter__()
        self._started_s = self._now_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._histogram is not None:
            self._histogram.observe(self._now_s() - self._started_s)
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        if self._token is not None:
            acting.reset(self._token)


class Observer:
    """Metrics and spans of the path. Nothing in here awaits, blocks or raises into the action."""

    def __init__(self, metrics: Metrics, clock: Clock, tracing: Tracing | None = None) -> None:
        self._metrics = metrics
        self._now_s = clock.monotonic_s
        self._tracing = tracing if tracing is not None else NoTracing()
        self._traced = self._tracing.enabled

    def span(self, name: str, action: Action) -> _Block:
        """A block of the path: `action` is the whole, the others are stages inside it."""
        span = self._tracing.span(name, action) if self._traced else None
        if name == names.ACTION:
            return _Block(self._metrics.duration_of(action.kind), self._now_s, span, action)
        return _Block(self._metrics.stage_of.get(name), self._now_s, span, None)

    def ended(self, action: Action, status: Status, decision: Decision | None, result: Result | None) -> None:
        """Note the end of an action whose intent was recorded. Call it inside the action's span."""
        effect = decision.effect.value if decision is not None else "none"
        self._metrics.action(action.kind.value, effect, status.value)
        if result is not None and action.kind is Kind.MODEL_INVOKE:
            self._metrics.spent(action.target, result.cost)
        if self._traced:
            self._tracing.ended(action, status, decision, result)

    def unauthenticated(self) -> None:
        """Note a request without a known credential."""
        self._metrics.unauthenticated()

    def refused(self, action: Action, refusal: Refusal) -> None:
        """Note a refusal: nothing was done."""
        effect = _EFFECT_OF_CODE.get(refusal.code, "none")
        self._metrics.action(action.kind.value, effect, Status.DENIED.value)
        self._metrics.refusal(refusal.code)
