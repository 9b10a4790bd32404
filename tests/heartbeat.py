"""How long the event loop stood still, in CPU time of its own thread.

On a busy machine a thread also waits for the others of its process and for other processes; neither counts here, so
that a test fails for what the loop itself does. Work in a thread must be bounded on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator


class Heartbeat:
    """`longest_s`: the most CPU time that was spent between two turns of the loop."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.beats = 0

    async def run(self) -> None:
        """Beat at each turn of the loop."""
        before_s = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            self.longest_s = max(self.longest_s, now_s - before_s)
            before_s = now_s
            self.beats += 1


@contextlib.asynccontextmanager
async def heartbeat() -> AsyncIterator[Heartbeat]:
    """Beats while the block runs."""
    beating = Heartbeat()
    task = asyncio.create_task(beating.run())
    await asyncio.sleep(0)
    try:
        yield beating
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
