"""An action on its way: its task, and the caller who listens to it or has left.

The action belongs to the gateway. A caller that hangs up is only no longer sent anything; what goes on upstream is
then read to its end, to learn the true cost, or closed, to stop paying.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.actions import Action, Decision, Reply
from gateway.errors import Refusal


class Sink(Protocol):
    """Where a streamed answer goes: a door's connection."""

    async def head(self, status: int, headers: dict[str, str]) -> None: ...
    async def chunk(self, data: bytes) -> None: ...
    async def error(self, refusal: Refusal) -> None: ...


class Running:
    """One action in flight."""

    def __init__(self, action: Action, sink: Sink | None) -> None:
        self.action = action
        self.decision: Decision | None = None
        self.intent_recorded = False
        self.task: asyncio.Task[Reply | None] | None = None
        self.left = False  # the caller hung up
        self.interrupted: Refusal | None = None  # why the stream was ended before its end
        self._sink = sink
        self.relaying = False
        self._drain_s = 0.0

    async def reply(self) -> Reply | None:
        """The complete answer (None where it was streamed). Cancelling the waiter does not cancel the action."""
        assert self.task is not None
        return await asyncio.shield(self.task)

    def leave(self) -> None:
        """The caller is gone: send nothing more, and read the rest upstream for as long as the provider says."""
        if self.left:
            return
        self.left = True
        self._sink = None
        if self.relaying:
            self._drain()

    def abort(self, refusal: Refusal) -> None:
        """End an open stream; the caller is told why."""
        self.interrupted = self.interrupted or refusal
        if self.relaying and self.task is not None:
            self.task.cancel()

    async def open(self, status: int, headers: dict[str, str], *, drain_s: float) -> None:
        """The stream begins. `drain_s`: how long to read on, in seconds, once the caller has left."""
        self.relaying = True
        self._drain_s = drain_s
        if self.interrupted is not None:
            raise self.interrupted
        if self._sink is not None:
            await self._sink.head(status, headers)
        if self.left:
            self._drain()

    async def send(self, data: bytes) -> None:
        if self._sink is not None:
            await self._sink.chunk(data)

    async def fail(self, refusal: Refusal) -> None:
        """Tell the caller, in the stream, why it ends."""
        if self._sink is not None:
            await self._sink.error(refusal)

    def close(self) -> None:
        """The stream is over; from here on nothing interrupts the task."""
        self.relaying = False

    def _drain(self) -> None:
        gone = Refusal("upstream_failed", "The client closed the connection before the answer was complete.")
        if self._drain_s <= 0:
            self.abort(gone)
        else:
            asyncio.get_running_loop().call_later(self._drain_s, self.abort, gone)
