"""Answers that are given again to a request that is sent again with its Idempotency-Key.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ has the manner. Kept in memory only: what
must not happen twice is kept from it by the room itself, which also knows the vote that is repeated after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from gateway.clock import Clock
from gateway.errors import Refusal

KEPT_S = 24 * 3600
MOST = 1000

Reply = tuple[dict[str, Any], dict[str, str]]  # a body and headers


class _Given(NamedTuple):
    request: object
    reply: asyncio.Future[Reply]
    until_s: float


class Replies:
    """The answers of the last day, by person and key. Belongs to the event loop's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._given: dict[tuple[str, str], _Given] = {}

    async def once(
        self, person: str, key: str | None, request: object, make: Callable[[], Awaitable[Reply]]
    ) -> tuple[Reply, bool]:
        """What `make` answers, and whether it was answered before. Refusals are not kept: they changed nothing.

        Raises what `make` raises, and Refusal(conflict) where the key was used for another request.
        """
        if key is None:
            return await make(), False
        self._forget_old()
        given = self._given.get((person, key))
        if given is not None:
            if given.request != request:
                raise Refusal(
                    "conflict", "This Idempotency-Key was used for another request; take a new one for a new request."
                )
            return await asyncio.shield(given.reply), True
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._given[person, key] = _Given(request, reply, self._clock.monotonic_s() + KEPT_S)
        try:
            made = await make()
        except BaseException as error:
            del self._given[person, key]
            failed = error if isinstance(error, Refusal) else Refusal("internal", "The first request failed.")
            reply.set_exception(failed)
            reply.exception()  # looked at: perhaps nobody else waits for it
            raise
        reply.set_result(made)
        return made, False

    def _forget_old(self) -> None:
        now_s = self._clock.monotonic_s()
        for name, given in tuple(self._given.items()):  # oldest first
            if given.until_s > now_s and len(self._given) < MOST:
                break
            if given.reply.done():
                del self._given[name]
