"""How fast a tool server may send what nobody asked for: notifications, its own requests, lines that are no messages.

None of it is worth the event loop's time, which belongs to everybody. Whoever reads a server's messages awaits `Pace`
for each; beyond the pace it is not read, so that the kernel's buffers fill and the server waits.
"""

from __future__ import annotations

import asyncio
from typing import Final

MOST_PER_S: Final = 500
MOST_PER_CALL: Final = 10_000
"""Messages before the answer of one call; progress notifications are among them."""
_BATCH = 50  # messages that are taken without letting others run
_STEP_BYTES = 32 * 1024


class Pace:
    """Counts the unasked messages of one connection."""

    def __init__(self, most_per_s: int = MOST_PER_S) -> None:
        self._most_per_s = most_per_s
        self._second_s = 0.0
        self._count = 0

    async def wait(self) -> None:
        """One more message; returns once the next may be read."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._second_s >= 1.0:
            self._second_s, self._count = now_s, 0
        self._count += 1
        if self._count >= self._most_per_s:
            await asyncio.sleep(self._second_s + 1.0 - now_s)
        elif self._count % _BATCH == 0:
            await asyncio.sleep(0)


class Turns:
    """Lets others run between pieces of work: await `after` with the size of what was done."""

    def __init__(self, step: int = _STEP_BYTES) -> None:
        self._step = step
        self._done = 0

    async def after(self, size: int) -> None:
        """`size` bytes (or lines times `step`) were worked on."""
        self._done += size
        if self._done >= self._step:
            self._done = 0
            await asyncio.sleep(0)
