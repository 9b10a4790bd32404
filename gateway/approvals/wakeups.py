"""Who waits for a case, and who listens to all of them, in this process. Belongs to the event loop's thread."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator

from gateway.approvals.case import Case

LISTENER_LIMIT = 1000

Place = asyncio.Future[Case | None]
_LOOKS_ITSELF = 2**63  # and so needs no telling: newer than any version


class Listener(AsyncIterator[str]):
    """Ids of cases as they change, from the moment it was made; ends when the gateway stops."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()

    def tell(self, case_id: str | None) -> None:
        """None: there will be no more."""
        if self._queue.qsize() >= LISTENER_LIMIT:  # a slow listener: the newest changes are what it needs
            self._queue.get_nowait()
        self._queue.put_nowait(case_id)

    async def __anext__(self) -> str:
        case_id = await self._queue.get()
        if case_id is None:
            self._queue.put_nowait(None)
            raise StopAsyncIteration
        return case_id

    async def aclose(self) -> None:
        """It hears nothing more; whoever iterates it comes to the end."""
        self.tell(None)


class Wakeups:
    """Wakes on change. A waiter takes its place before it looks, so that no change between the two is missed."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Place, int]] = {}  # with the version of the case that each has seen
        self._listening: weakref.WeakSet[Listener] = weakref.WeakSet()  # who is gone needs no telling

    def place(self, case_id: str) -> Place:
        """A place resolved with the case by its next change, or with None to look around; give it back by `leave`."""
        place: Place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(case_id, {})[place] = _LOOKS_ITSELF
        return place

    def saw(self, case_id: str, place: Place, version: int) -> None:
        """Whoever has this place has seen the case as it was then."""
        if place in (places := self._waiting.get(case_id, {})):
            places[place] = version

    def is_behind(self, case: Case) -> bool:
        """Whether somebody waits who has not seen the case as it is now."""
        return any(seen < case.version for seen in self._waiting.get(case.id, {}).values())

    def leave(self, case_id: str, place: Place) -> None:
        """The place is not needed any more."""
        places = self._waiting.get(case_id)
        if places is not None:
            places.pop(place, None)
            if not places:
                del self._waiting[case_id]

    def changed(self, case: Case) -> None:
        """Wake who waits for the case, and tell who listens."""
        self._wake(case.id, case)
        for listener in self._listening:
            listener.tell(case.id)

    def wake_all(self) -> None:
        """Wake everybody to look around."""
        for case_id in tuple(self._waiting):
            self._wake(case_id, None)

    def stop(self) -> None:
        """Wake everybody; who listens comes to the end."""
        self.wake_all()
        for listener in self._listening:
            listener.tell(None)

    def _wake(self, case_id: str, case: Case | None) -> None:
        for place in self._waiting.pop(case_id, ()):
            if not place.done():
                place.set_result(case)

    @property
    def waited(self) -> tuple[str, ...]:
        """Ids of cases that somebody waits for."""
        return tuple(self._waiting)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, tuple(self._waiting.values())))

    def listen(self) -> Listener:
        """Hears every change from now on."""
        listener = Listener()
        self._listening.add(listener)
        return listener
