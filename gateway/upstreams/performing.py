"""Step 9 of the path: hand an action to the upstream that its target names."""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from gateway.actions import Action, ModelTarget, Reply, ReplyStream, Target
from gateway.errors import Refusal
from gateway.upstreams.budget import AnswerBudget
from gateway.upstreams.models import ModelProvider


class FindsProvider(Protocol):
    def provider(self, name: str) -> ModelProvider: ...


class CallsTools(Protocol):
    async def call(
        self, server: str, tool: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None, once: bool
    ) -> Reply: ...


class Performing:
    """Model calls go to their provider, tool calls to their server; nothing else is performed."""

    def __init__(self, models: FindsProvider, tools: CallsTools, budget: AnswerBudget) -> None:
        """`budget` is that of the answers of both."""
        self._budget = budget
        self._models = models
        self._tools = tools

    async def perform(
        self, action: Action, target: Target, body: bytes | None, traceparent: str, *, approved: bool
    ) -> Reply | ReplyStream:
        """The upstream's answer; `traceparent` tells it which trace it is part of.

        What people approved (`approved`) is sent once, also where it only reads: their votes are spent with it.

        Raises Refusal; `detail["dispatched"]` is "no" if it certainly never got there.
        """
        self._budget.admit(action.caller.agent.id)
        if isinstance(target, ModelTarget):
            if body is None:
                raise Refusal("internal", "A model call has no body to send; report this with the request id.")
            provider = self._models.provider(target.provider)
            return await provider.invoke(
                target, body, stream=action.stream, request_id=action.request_id, traceparent=traceparent
            )
        meta = _meta(action, traceparent)
        once = approved or target.effect != "read"
        return await self._tools.call(target.server, target.tool, action.arguments, meta=meta, once=once)

    def drain_s(self, target: Target) -> float:
        """How long to read on when the caller has left, in seconds; 0 closes at once."""
        if not isinstance(target, ModelTarget):
            return 0.0
        provider = self._models.provider(target.provider)
        return provider.drain_s if provider.on_hang_up == "drain" else 0.0


def _meta(action: Action, traceparent: str) -> dict[str, Any]:
    """What goes along with a tool call: the client's own `_meta`, and the trace it belongs to."""
    attached = orjson.loads(action.body).get("_meta", {}) if action.body else {}
    return {**attached, "traceparent": traceparent}
