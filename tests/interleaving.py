"""Races that are walked, not hoped for: whoever is about to touch the store waits for its turn, and a test goes through
every order of the turns.

`Turns.watch` puts a turnstile before a method of a real room; it holds only calls that a racer makes, and those that
grow out of them. Whatever is under way beside the racers runs as it always does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, NamedTuple

import pytest

from gateway.errors import Refusal

PATIENCE_S = 10.0
# Turns of the event loop in which a racer gets from one touch of the store to the next, if it waits for nothing else.
_STEPS = 200
_racer: contextvars.ContextVar[str] = contextvars.ContextVar("racer", default="")


class Orders(Iterator["Orders"]):
    """Every order of the turns, depth first, in at most `most` rounds."""

    def __init__(self, most: int = 1000) -> None:
        self.rounds = 0
        self._most = most
        self._path: list[tuple[int, int]] = []  # which of how many was let go
        self._at = 0

    def __next__(self) -> Orders:
        del self._path[self._at :]
        while self._path and self._path[-1][0] + 1 >= self._path[-1][1]:
            self._path.pop()
        if self.rounds and not self._path:
            raise StopIteration
        assert self.rounds < self._most, "there are more orders than the test allows for"
        if self._path:
            choice, width = self._path[-1]
            self._path[-1] = choice + 1, width
        self._at, self.rounds = 0, self.rounds + 1
        return self

    def choose(self, width: int) -> int:
        """Which of so many racers goes next."""
        if width == 1:
            return 0
        if self._at == len(self._path):
            self._path.append((0, width))
        choice = min(self._path[self._at][0], width - 1)
        self._path[self._at] = choice, width
        self._at += 1
        return choice

    def __str__(self) -> str:
        return "".join(str(choice) for choice, _ in self._path)


class _Ticket(NamedTuple):
    racer: str
    go: asyncio.Event
    done: asyncio.Event


class Turns:
    """The turnstiles of a gateway."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._waiting: list[_Ticket] = []
        self._apart: list[tuple[str, Callable[[], bool]]] = []
        self._racing = False
        self._under_way = 0

    def watch(self, room: object, method: str) -> None:
        """Racers need a turn to call this."""
        call = getattr(room, method)

        async def watched(*args: Any, **kwargs: Any) -> Any:
            return await self._turn(lambda: call(*args, **kwargs))

        self._monkeypatch.setattr(room, method, watched)

    def count(self, room: object, method: str) -> None:
        """A racer that is in here is under way; the method is a coroutine, or gives a future."""
        call = getattr(room, method)

        def counted(*args: Any, **kwargs: Any) -> asyncio.Future[Any]:
            future: asyncio.Future[Any] = asyncio.ensure_future(call(*args, **kwargs))
            self._under_way += 1
            future.add_done_callback(self._arrived)
            return future

        self._monkeypatch.setattr(room, method, counted)

    def _arrived(self, _: object) -> None:
        self._under_way -= 1

    def apart(self, room: object, method: str, name: str, busy: Callable[[], bool]) -> None:
        """What this begins races on its own, under this name, for as long as it is `busy`.

        Without a name it does not race, but is waited for before the next turn.
        """
        call = getattr(room, method)

        def begun(*args: Any) -> None:
            context = contextvars.copy_context()
            context.run(_racer.set, name if self._racing else "")
            context.run(call, *args)

        self._monkeypatch.setattr(room, method, begun)
        self._apart.append((name, busy))

    async def at_once(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Do all of this in one turn."""
        return await self._turn(call)

    async def race(self, orders: Orders, **racers: Callable[[], Coroutine[Any, Any, Any]]) -> dict[str, Any]:
        """Let them race in the next order; what each came to, or was refused with."""
        tasks = {name: asyncio.create_task(self._run(name, racer)) for name, racer in racers.items()}
        self._racing = True
        async with asyncio.timeout(PATIENCE_S):
            while self._waiting or self._busy() or not all(task.done() for task in tasks.values()):
                await self._quiet(tasks)
                if self._waiting:
                    self._waiting.sort(key=lambda ticket: ticket.racer)
                    ticket = self._waiting.pop(orders.choose(len(self._waiting)))
                    ticket.go.set()
                    await ticket.done.wait()
                else:
                    await asyncio.sleep(0.0005)
        self._racing = False
        return {name: task.result() for name, task in tasks.items()}

    def _busy(self) -> set[str]:
        return {name for name, busy in self._apart if busy()}

    async def _quiet(self, tasks: dict[str, asyncio.Task[Any]]) -> None:
        """Wait until each racer wants a turn, has ended, or waits for what another does."""
        still = 0
        while still < _STEPS:
            await asyncio.sleep(0)
            waiting = {ticket.racer for ticket in self._waiting}
            busy = bool(self._under_way) or bool(self._busy() - waiting)
            if not busy and all(task.done() or name in waiting for name, task in tasks.items()):
                return
            still = 0 if busy else still + 1

    async def _run(self, name: str, racer: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        _racer.set(name)
        await self._turn(_nothing)
        try:
            return await racer()
        except Refusal as refusal:
            return refusal

    async def _turn(self, call: Callable[[], Awaitable[Any]]) -> Any:
        racer = _racer.get()
        if not racer:
            return await call()
        ticket = _Ticket(racer, asyncio.Event(), asyncio.Event())
        self._waiting.append(ticket)
        await ticket.go.wait()
        try:
            return await call()
        finally:
            ticket.done.set()


async def _nothing() -> None:
    return
