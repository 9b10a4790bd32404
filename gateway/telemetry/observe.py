"""What the governor calls: one object that times the path, counts ends and refusals, and opens spans."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol

from gateway.actions import Action, Decision, Effect, Kind, Result, Status, Target, Trace
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.telemetry import names
from gateway.telemetry.calls import Call, ReadsAnswers
from gateway.telemetry.logs import acting
from gateway.telemetry.metrics import Metrics, error_label
from gateway.telemetry.tracing import NoTracing, Span, Tracing

_EFFECT_OF_CODE = {
    "denied_by_policy": Effect.DENY.value,
    "unknown_tool": Effect.DENY.value,
    **dict.fromkeys(("approval_required", "approval_denied", "approval_expired"), Effect.ESCALATE.value),
}


class _Observes(Protocol):
    def observe(self, amount: float) -> None: ...


class _Block:
    """Times a block and carries its span."""

    __slots__ = ("_histogram", "_now_s", "_span", "started_s")

    def __init__(self, histogram: _Observes | None, now_s: Callable[[], float], span: Span | None) -> None:
        self._histogram = histogram
        self._now_s = now_s
        self._span = span
        self.started_s = 0.0

    def __enter__(self) -> _Block:
        if self._span is not None:
            self._span.__enter__()
        self.started_s = self._now_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._histogram is not None:
            self._histogram.observe(self._now_s() - self.started_s)
        if self._span is not None:
            self._span.__exit__(kind, error, trace)

    def came_to(self, state: str) -> None:
        """The state of the case that was waited for."""
        if self._span is not None:
            self._span.came_to(state)


class _Whole(_Block):
    """A whole action: bound to the log lines inside, and to its own end."""

    __slots__ = ("_action", "_metrics", "_tokens", "error", "found")

    def __init__(
        self, action: Action, histogram: _Observes, now_s: Callable[[], float], span: Span | None, metrics: Metrics
    ) -> None:
        super().__init__(histogram, now_s, span)
        self._action = action
        self._metrics = metrics
        self._tokens: tuple[Token[Action | None], Token[_Whole | None]] | None = None
        self.found = False  # its target exists for this agent, so that its name may be a label
        self.error = ""

    def decided(self, action: Action, decision: Decision) -> None:
        """Note what was decided on it, or on something that grew out of it."""
        if action is self._action:
            self.found = not decision.hidden  # nothing is decided on what does not exist
            if self._span is not None:
                self._span.decided(decision)

    def __enter__(self) -> _Whole:
        self._tokens = (acting.set(self._action), _whole.set(self))
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        method = names.METHOD_OF_KIND.get(self._action.kind)
        if method is not None and self._action.rpc is not None:
            if kind is not None:
                self.error = error_label(error.code if isinstance(error, Refusal) else None)
            tool = self._action.target if self.found else ""
            self._metrics.served(method, tool, self.error).observe(self._now_s() - self.started_s)
        if self._tokens is not None:
            acting.reset(self._tokens[0])
            _whole.reset(self._tokens[1])


class _Attempt(_Block):
    """What was approved is carried out in a task of its own, which may have been made by anybody's."""

    __slots__ = ("_action", "_tokens")

    def __init__(self, action: Action, now_s: Callable[[], float], span: Span | None) -> None:
        super().__init__(None, now_s, span)
        self._action = action
        self._tokens: tuple[Token[Action | None], Token[_Whole | None]] | None = None

    def __enter__(self) -> _Attempt:
        self._tokens = (acting.set(self._action), _whole.set(None))
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._tokens is not None:
            acting.reset(self._tokens[0])
            _whole.reset(self._tokens[1])


_whole: ContextVar[_Whole | None] = ContextVar("whole", default=None)
"""The action that is on its way in this context."""


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
            return _Whole(action, self._metrics.duration_of(action.kind), self._now_s, span, self._metrics)
        return _Block(self._metrics.stage_of.get(name), self._now_s, span)

    def attempt(self, action: Action, case_id: str) -> _Block:
        """A block that carries out what was approved; its spans belong to the trace of the action that asked."""
        return _Attempt(action, self._now_s, self._tracing.attempt(action, case_id) if self._traced else None)

    def waits(self, action: Action, case_id: str, asked: Trace) -> _Block:
        """A block in which an action waits for a case that the action of the trace `asked` opened."""
        return _Block(None, self._now_s, self._tracing.waits(action, case_id, asked) if self._traced else None)

    def call(self, action: Action, target: Target, answers: ReadsAnswers | None) -> Call:
        """A request to an upstream. `answers` reads what a model's answer says of itself, if somebody wants to know."""
        return Call(action, target, answers, self._metrics, self._now_s, self._tracing.call(action, target))

    def decided(self, action: Action, decision: Decision) -> None:
        """Note a decision inside its stage."""
        whole = _whole.get()
        if whole is not None:
            whole.decided(action, decision)
        if self._traced:
            self._tracing.decided(decision)

    def ended(self, action: Action, status: Status, decision: Decision | None, result: Result | None) -> None:
        """Note the end of an action whose intent was recorded. Call it inside the action's span."""
        effect = decision.effect.value if decision is not None else "none"
        self._metrics.action(action.kind.value, effect, status.value)
        if result is not None and action.kind is Kind.MODEL_INVOKE:
            self._metrics.spent(action.target, result.cost)
        whole = _whole.get()
        if whole is not None and status is not Status.SUCCEEDED:
            whole.error = error_of(action, status, result)
        if self._traced:
            self._tracing.ended(action, status, result)

    def unauthenticated(self) -> None:
        """Note a request without a known credential."""
        self._metrics.unauthenticated()

    def refused(self, action: Action, refusal: Refusal) -> None:
        """Note a refusal: nothing was done."""
        effect = _EFFECT_OF_CODE.get(refusal.code, "none")
        self._metrics.action(action.kind.value, effect, Status.DENIED.value)
        self._metrics.refusal(refusal.code)


def error_of(action: Action, status: Status, result: Result | None) -> str:
    """How an action failed, as a label."""
    code = result.code if result is not None else None
    if code is None:
        return names.TOOL_ERROR if action.kind is Kind.TOOL_CALL else status.value
    return error_label(code)
