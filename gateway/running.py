"""An action on its way: its task, and the caller who listens to it or has left.

The action belongs to the gateway. A caller that hangs up is only no longer sent anything; what goes on upstream is
then read to its end, to learn the true cost, or closed, to stop paying.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from gateway.actions import Action, Decision, Kind, Reply
from gateway.errors import Refusal

# How long a caller that takes nothing may hold up the record of how its stream ended.
TELL_S = 0.5


KEPT_BYTES = 1024 * 1024


class Sink(Protocol):
    """Where a streamed answer goes: a door's connection."""

    async def head(self, status: int, headers: dict[str, str]) -> None: ...
    async def chunk(self, data: bytes) -> None: ...
    async def error(self, refusal: Refusal) -> None: ...


class Kept:
    """What was sent of a stream, for the record; past the limit nothing is kept but the size."""

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit_bytes:
            self._parts.append(data)
        else:
            self._parts.clear()

    @property
    def body(self) -> bytes | None:
        """All of it, or nothing: a part would not be what was sent."""
        return None if self.unkept_bytes else b"".join(self._parts)

    @property
    def unkept_bytes(self) -> int:
        """The size of a stream that was too long to keep."""
        return self._size if self._size > self._limit_bytes else 0


class Rates(Protocol):
    """What is left of the tightest rates, for the headers that tell; None: not limited."""

    @property
    def limit_requests(self) -> int | None: ...
    @property
    def remaining_requests(self) -> int | None: ...
    @property
    def reset_requests_s(self) -> int: ...
    @property
    def limit_tokens(self) -> int | None: ...
    @property
    def remaining_tokens(self) -> int | None: ...
    @property
    def reset_tokens_s(self) -> int: ...


class Place(Protocol):
    """A place among the agent's concurrent actions."""

    def release(self) -> None: ...


class Running:
    """One action in flight. `hold_s`: how long its caller can be held where it must wait for a person."""

    def __init__(self, action: Action, sink: Sink | None, hold_s: float | None = None) -> None:
        self.action = action
        self.decision: Decision | None = None
        self.rates: Rates | None = None
        self.recorded = False  # its record stands, so that a refusal makes no other
        self.task: asyncio.Task[Reply | None] | None = None
        self.left = False  # the caller hung up, or takes nothing any more
        self.interrupted: Refusal | None = None  # why the stream was ended before its end
        self.place: Place | None = None
        # Waiting for a person.
        self.hold_s = hold_s
        self.until_s: float | None = None  # when the hold is over, once it has begun
        self.case: str | None = None  # the case that it waits for
        self.attempt: str | None = None  # the case that this is an attempt of
        self.waits = asyncio.Event()  # set once it waits
        self.replayed = False  # its answer is a stored one
        self.answer_id: str | None = None  # the model call whose kept answer this is
        self.asked: set[str] = set()  # digests of what people were asked of this answer
        self.is_whole = False  # all of the answer is here, so there is nothing to stop paying for
        self.withheld: Refusal | None = None  # why nothing of the stream is sent: what it proposes waits
        self.opened = False  # bytes of the stream are out
        self.relaying = False
        self._sink = sink
        self.sent_s = 0.0  # when bytes of the stream were sent last, on the event loop's clock
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()  # the stream and what keeps it alive take turns
        self._head: tuple[int, dict[str, str]] | None = None
        self._interruptible = False
        self._drain_s = 0.0

    def wait_for(self, case_id: str, *, people: bool = True) -> None:
        """From here on it waits for its case; for `people`: then its place among the concurrent actions is free."""
        self.case = case_id
        self.waits.set()
        if people and self.place is not None:
            self.place.release()

    async def reply(self) -> Reply | None:
        """The complete answer (None where it was streamed). Cancelling the waiter does not cancel the action."""
        assert self.task is not None
        return await asyncio.shield(self.task)

    def leave(self, *, at_once: bool = False) -> None:
        """The caller is gone: send nothing more, and read the rest upstream for as long as the provider says.

        at_once: don't read on, since the task is stuck on a caller that takes nothing.
        """
        if self.left:
            return
        self.left = True
        self._sink = None
        if self._interruptible:
            self._drain(at_once=at_once)
        elif self.waits.is_set() and self.action.kind is Kind.TOOL_CALL and self.task is not None:
            self.task.cancel()  # it only looks on: what people approve runs in a task of its own

    def abort(self, refusal: Refusal) -> None:
        """End a model call, whether it waits for its first byte or streams; the caller is told why."""
        if self.interrupted is not None:
            return
        self.interrupted = refusal
        if self._interruptible and self.task is not None:
            self.task.cancel()

    def perform(self, drain_s: float) -> None:
        """The model is asked. `drain_s`: how long to read on, in seconds, once the caller has left.

        Raises the reason if the call was ended before it began.
        """
        self._drain_s = drain_s
        if self.left and drain_s <= 0:
            self.abort(_gone())
        if self.interrupted is not None:
            raise Refusal(self.interrupted.code, self.interrupted.message, detail={"dispatched": "no"})
        self._interruptible = True
        if self.left:
            self._drain()

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """The stream begins; its head goes out with the first bytes, so that until then it can still be refused."""
        self.relaying = True
        if not self.opened:
            self.sent_s = self._loop.time()
            self._head = (status, headers)

    async def send(self, data: bytes) -> None:
        if self.withheld is not None:
            return
        self.sent_s = self._loop.time()
        async with self._sending:
            await self.open()
            if self._sink is not None:
                await self._sink.chunk(data)

    async def open(self) -> None:
        """Send the head, if it is not out yet."""
        if self._head is not None:
            head, self._head, self.opened = self._head, None, True
            if self._sink is not None:
                await self._sink.head(*head)

    async def fail(self, refusal: Refusal) -> None:
        """Tell the caller, in the stream, why it ends."""
        if self._sink is not None:
            with contextlib.suppress(TimeoutError):  # one who takes nothing can't be told
                async with asyncio.timeout(TELL_S):
                    await self._sink.error(refusal)

    def close(self) -> None:
        """The model's answer is there or has ended; from here on nothing interrupts the task."""
        self.relaying = False
        self._interruptible = False

    def _drain(self, *, at_once: bool = False) -> None:
        if at_once:
            self.abort(_gone())
        elif self._drain_s <= 0:
            self._stop_paying()
        else:
            asyncio.get_running_loop().call_later(self._drain_s, self._stop_paying)

    def _stop_paying(self) -> None:
        if not self.is_whole:
            self.abort(_gone())


def _gone() -> Refusal:
    """Nobody hears it; its code stands in the record."""
    return Refusal("client_left", "The client closed the connection before the answer was complete.")
