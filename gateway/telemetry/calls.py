"""One request to an upstream, timed to the end of its answer: what the conventions ask about clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Protocol

from gateway.actions import (
    Action,
    Answered,
    ModelTarget,
    Reply,
    ReplyStream,
    Result,
    Rpc,
    Status,
    Target,
    ToolTarget,
)
from gateway.telemetry import names
from gateway.telemetry.metrics import Metrics, ModelSeries, error_label
from gateway.telemetry.tracing import CallSpan, Told


class ReadsAnswers(Protocol):
    """Reads what a model's answer says of itself, from its body as it was given to the agent."""

    def answered(self, body: bytes, *, stream: bool) -> Answered: ...


class Call:
    """A block until the upstream answers or its stream begins; then `answer` and `ended`, in this order."""

    __slots__ = (
        *("_action", "_answered_s", "_answers", "_first_s", "_metrics", "_model", "_rpc", "_span"),
        *("_started_s", "_target", "now_s", "traceparent"),
    )

    def __init__(
        self,
        action: Action,
        target: Target,
        answers: ReadsAnswers | None,
        metrics: Metrics,
        now_s: Callable[[], float],
        span: CallSpan,
    ) -> None:
        self._action = action
        self._target = target
        self._answers = answers
        self._metrics = metrics
        self.now_s = now_s
        self._span = span
        self._model: ModelSeries | None = None
        self._rpc: Rpc | None = None
        self._started_s = self._answered_s = now_s()
        self._first_s: float | None = None
        self.traceparent = span.traceparent
        """The trace context for the upstream."""

    def __enter__(self) -> Call:
        self._span.__enter__()
        self._started_s = self.now_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answered_s = self.now_s()
        self._metrics.stage_of[names.PERFORM].observe(self._answered_s - self._started_s)
        self._span.__exit__(kind, error, trace)

    def answer(self, answer: Reply | ReplyStream) -> Reply | ReplyStream:
        """The answer as it is to be read on: a stream is timed piece by piece."""
        if isinstance(answer, Reply):
            self._rpc = answer.rpc
            return answer
        if isinstance(self._target, ModelTarget):
            self._model = self._metrics.model(self._target.provider, self._target.model)
        return _Timed(answer, self)

    def piece(self, waited_s: float, now_s: float) -> None:
        """A piece of a stream is here, `waited_s` after it was waited for."""
        self._answered_s = now_s
        if self._first_s is None:
            self._first_s = now_s - self._started_s
            if self._model is not None:
                self._model.first_chunk.observe(self._first_s)
        elif self._model is not None:
            self._model.next_chunk.observe(waited_s)

    def stream_ended(self) -> None:
        self._answered_s = self.now_s()

    def ended(self, result: Result) -> None:
        """Note how it ended. The time until people let the answer go is no time of the upstream's."""
        took_s = self._answered_s - self._started_s
        target, error = self._target, ""
        if result.status is not Status.SUCCEEDED:
            error = error_label(result.code or names.TOOL_ERROR)
        if isinstance(target, ModelTarget):
            series = self._metrics.model(target.provider, target.model)
            series.duration(error).observe(took_s)
            usage = result.cost.usage
            if not usage.estimated and (usage.input_tokens or usage.output_tokens):
                series.input_tokens.observe(usage.input_tokens)
                series.output_tokens.observe(usage.output_tokens)
        else:
            execute, request = self._metrics.tool(target.server, target.tool, error)
            execute.observe(took_s)
            request.observe(took_s)
        if self._span.recording:
            self._span.ended(Told(result, took_s, self._first_s, self._rpc, self._said(result)))

    def _said(self, result: Result) -> Answered | None:
        if isinstance(self._target, ToolTarget) or self._answers is None or not result.body:
            return None
        return self._answers.answered(result.body, stream=self._action.stream)


class _Timed:
    """A stream whose pieces are timed as they come."""

    __slots__ = ("_call", "_source", "_stream", "headers", "status")

    def __init__(self, stream: ReplyStream, call: Call) -> None:
        self.status = stream.status
        self.headers = stream.headers
        self._stream = stream
        self._source = aiter(stream)
        self._call = call

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        call = self._call
        asked_s = call.now_s()
        try:
            piece = await self._source.__anext__()
        except BaseException:
            call.stream_ended()
            raise
        now_s = call.now_s()
        call.piece(now_s - asked_s, now_s)
        return piece

    async def aclose(self) -> None:
        await self._stream.aclose()
