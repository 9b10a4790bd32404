"""Run work on large answers in one thread of its own, so that the event loop goes on serving others.

One thread and not many: JSON parsers hold the interpreter lock while they run, so several at once would keep the event
loop from it for as long as all of them take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES: Final = 64 * 1024
"""Smaller work runs at once: it takes less than a millisecond, and going to a thread and back a tenth of that."""

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large answers")


async def run_sized(size: int, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work`, which handles `size` bytes; in the thread where they are many. Raises what it raises."""
    if size <= LARGE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.wrap_future(_thread.submit(work, *args, **kwargs))
