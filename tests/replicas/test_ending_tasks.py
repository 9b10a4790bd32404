"""A task that is told to end does, also where a client library took the first telling for a time-out of its own."""

from __future__ import annotations

import asyncio

from gateway import tasks


async def test_a_task_whose_cancelling_was_swallowed_ends_all_the_same() -> None:
    begun = asyncio.Event()

    async def goes_on() -> None:
        try:
            begun.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)

    task = asyncio.create_task(goes_on())
    await begun.wait()
    await asyncio.wait_for(tasks.end([task]), 10)
    assert task.cancelled()
