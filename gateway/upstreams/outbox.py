"""What is posted to a tool server while nobody waits for its answer: replies to its own requests, cancellations.

One task per connection sends them one after the other. A server that asks faster than it takes answers is not answered:
what does not fit is dropped, since nothing depends on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

MAX_REPLIES: Final = 16
MAX_NOTICES: Final = 256
MAX_REPLY_BYTES: Final = 4096
"""A reply repeats the id of the request, which the server chose."""


class Outbox:
    """`post` sends one message and raises nothing."""

    def __init__(self, post: Callable[[bytes], Awaitable[None]]) -> None:
        self._post = post
        self._replies: deque[bytes] = deque()
        self._notices: deque[bytes] = deque()
        self._task: asyncio.Task[None] | None = None

    def reply(self, body: bytes) -> None:
        """Send a reply to a request of the server, if there is room."""
        self._put(self._replies, MAX_REPLIES, body)

    def notice(self, body: bytes) -> None:
        """Send a notification, if there is room; before any reply."""
        self._put(self._notices, MAX_NOTICES, body)

    async def aclose(self) -> None:
        """Drop what is left."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _put(self, queue: deque[bytes], most: int, body: bytes) -> None:
        if len(queue) >= most or len(body) > MAX_REPLY_BYTES:
            return
        queue.append(body)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while queue := self._notices or self._replies:
            await self._post(queue.popleft())
