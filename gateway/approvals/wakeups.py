"""Who waits for a case, and who listens to all of them, in this process. Belongs to the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

LISTENER_LIMIT = 1000


class Wakeups:
    """Wakes on change. A waiter takes its place before it looks, so that no change between the two is missed."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[bool]]] = {}
        self._listening: set[asyncio.Queue[str]] = set()

    def place(self, case_id: str) -> asyncio.Future[bool]:
        """A place that is resolved by the case's next change (to False); give it back with `leave`."""
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(case_id, set()).add(place)
        return place

    def leave(self, case_id: str, place: asyncio.Future[bool]) -> None:
        """The place is not needed any more."""
        places = self._waiting.get(case_id)
        if places is not None:
            places.discard(place)
            if not places:
                del self._waiting[case_id]

    def changed(self, case_id: str) -> None:
        """Wake who waits for the case, and tell who listens."""
        self._wake(case_id, look=False)
        for queue in self._listening:
            if queue.full():  # a slow listener: the newest changes are what it needs
                queue.get_nowait()
            queue.put_nowait(case_id)

    def wake_all(self, *, look: bool = False) -> None:
        """Wake everybody. `look`: and not only to see whether their case is another."""
        for case_id in tuple(self._waiting):
            self._wake(case_id, look=look)

    def _wake(self, case_id: str, *, look: bool) -> None:
        for place in self._waiting.pop(case_id, ()):
            if not place.done():
                place.set_result(look)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    async def listen(self) -> AsyncIterator[str]:
        """Ids of cases as they change; ends when whoever listens stops iterating."""
        queue: asyncio.Queue[str] = asyncio.Queue(LISTENER_LIMIT)
        self._listening.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listening.discard(queue)
