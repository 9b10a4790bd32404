"""How a call waits for a person: as long as its client can bear, and told of it where it can be told.

The case belongs to the gateway. A client that hangs up, or is told to come back, ends the waiting of its request and
nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from gateway.actions import Reply
from gateway.doors.desk import Receive
from gateway.doors.mcp.governs import InFlight

T = TypeVar("T")


class Ladder(NamedTuple):
    """How long clients are held, in seconds; the silent hold of the others is `approvals.hold_s`."""

    leg_s: float = 25.0  # 2026-07-28: one leg, well under the time-outs that its clients have for one request
    legs: int = 8  # the SDKs give up after 10
    progress_s: float = 210.0  # older revisions with a progress token: all of it
    first_beat_s: float = 0.5  # before the first progress, once it waits; until then an answer is plain JSON
    beat_s: float = 10.0  # between progress and progress


SHIPPED: Final = Ladder()


class LeftError(Exception):
    """The client hung up, so there is nobody to answer."""


async def reply_of(
    running: InFlight, receive: Receive, ladder: Ladder, tell: Callable[[], Awaitable[None]] | None
) -> Reply | None:
    """The answer of an action, however long it takes; `tell` is called now and then while it waits for a person.

    Raises the action's refusal, and `LeftError` where its client leaves while it waits.
    """
    task = running.task
    assert task is not None
    done, _ = await asyncio.wait((task,), timeout=ladder.first_beat_s)  # cheap, and nearly always enough
    if done:
        return task.result()
    waits, gone = asyncio.ensure_future(running.waits.wait()), asyncio.ensure_future(_gone(receive))
    try:
        # A call that is only slow goes on without its client, as it did before there were people to wait for.
        await asyncio.wait((task, waits), return_when=asyncio.FIRST_COMPLETED)
        pause_s = ladder.first_beat_s  # a stored answer comes at once, and as plain JSON
        while not task.done():
            await asyncio.wait((task, gone), timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                break
            if gone.done():
                task.add_done_callback(_look)
                running.leave()
                raise LeftError
            if tell is not None:
                await tell()
            pause_s = ladder.beat_s
    finally:
        await _ended(waits)
        await _ended(gone)
    return task.result()


async def while_connected(answer: Awaitable[T], receive: Receive) -> T:
    """What `answer` brings. Raises `LeftError` where the client leaves first; then `answer` is cancelled."""
    task, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise LeftError
        return task.result()
    finally:
        await _ended(task)
        await _ended(gone)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(task: asyncio.Future[T]) -> None:
    """End a task of ours; what it ended with was looked at, or nobody is left to hear it."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    _look(task)


def _look(task: asyncio.Future[T]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
