"""Identical calls with an effect that arrive while one is in flight: it happens once, and all are told.

In memory, by the action's digest; what outlives a call stands in its case. An entry ends with the call's task.
"""

from __future__ import annotations

import asyncio

from gateway.actions import Decision, Effect, Reply, Status, Target, ToolTarget
from gateway.errors import Refusal
from gateway.rooms import Audit
from gateway.running import Running

_ELSEWHERE_S = 4_000.0  # over the longest time-out that a tool's manifest may set


def _untold(first: str) -> Refusal:
    return Refusal(
        "conflict",
        f"An identical call was carried out by another replica (action {first}), and its answer is not kept here; see "
        f"/api/v1/actions/{first} before you repeat it.",
        detail={"action": first},
    )


class Joining:
    """The allowed calls with an effect that are in flight. Belongs to the event loop's thread."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._first: dict[str, Running] = {}

    async def reply(self, running: Running, target: Target, decision: Decision) -> Reply | None:
        """The answer of the identical call that was first. None: there is none, and this one is first from here on.

        Raises the refusal that the first one ends with.
        """
        while (first := self._first_of(running, target, decision)) is not None:
            if not running.recorded:
                await self._audit.decided([(running.action, target, decision)], joined=first.action.id)
                running.recorded = True
            assert first.task is not None
            await asyncio.wait({first.task})
            if not first.task.cancelled():
                return first.task.result()
        running.recorded = False  # also where the first one's caller gave it up undone: this one ends by itself
        return None

    async def elsewhere(self, running: Running, target: Target, decision: Decision, first: str) -> Reply | None:
        """The answer of the identical call `first` that another replica carries out; None: it ended undone, or as
        nobody knows, so that this one goes its way again.

        Raises `conflict` where its answer can't be told.
        """
        ended = await self._audit.elsewhere(first, _ELSEWHERE_S) if first else None
        if first and ended is None:
            raise _untold(first)
        if ended is None or ended.status not in (Status.SUCCEEDED, Status.FAILED):
            return None
        if ended.status is Status.FAILED and ended.code is not None:
            return None  # it was refused or failed before it had an effect
        if ended.body is None:
            raise _untold(first)
        await self._audit.decided([(running.action, target, decision)], joined=first)
        running.recorded = True
        return Reply(body=ended.body, headers={"is-error": "true"} if ended.status is Status.FAILED else {})

    def over(self, running: Running) -> None:
        """A call has ended."""
        if self._first.get(running.action.digest) is running:
            del self._first[running.action.digest]

    def _first_of(self, running: Running, target: Target, decision: Decision) -> Running | None:
        if not isinstance(target, ToolTarget) or target.effect == "read" or decision.effect is Effect.DENY:
            return None
        if running.action.idempotency_key is not None:
            return None  # it has a case of its own, which outlives the call
        first = self._first.get(running.action.digest)
        if first is None and decision.effect is Effect.ALLOW:
            self._first[running.action.digest] = running
        return None if first is running else first
