"""How tasks that run until they are told are ended. Owns nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

_AGAIN_S = 1.0


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: a client library may take a cancelling for its own time-out, once."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=_AGAIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # looked at: it ends here, however it does
