"""Asking a model provider again, before its first byte has come: bounded, jittered, within one deadline.

Only what certainly did no paid work is asked again: a connection that could not be made, or an answer that says
so (408, 409, 429, 5xx). A request that died without an answer may be running at the provider; it is not repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from gateway.clock import Clock
from gateway.errors import Refusal

T = TypeVar("T")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 20.0  # a provider that asks for more is not waited for: the agent is told instead
DEADLINE_S = 60.0  # no attempt begins later than this after the first


class Failed(Exception):  # noqa: N818 - an attempt that ended; `refusal` is what the agent would be told
    """One attempt failed. `again`: another may succeed. `wait_s`: how long the provider asked to wait."""

    def __init__(self, refusal: Refusal, *, again: bool, wait_s: float | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.again = again
        self.wait_s = wait_s


class Retries:
    """How often and when. `jitter` gives numbers in [0, 1); `sleep` takes seconds."""

    def __init__(
        self,
        retries: int,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._retries = retries
        self._clock = clock
        self._jitter = jitter
        self._sleep = sleep
        self._deadline_s = deadline_s

    @property
    def allowed(self) -> bool:
        """Whether anything may be sent again at all."""
        return self._retries > 0

    async def run(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What the first successful attempt gives. Raises the refusal of the last one that failed.

        tenacity is entered only once an attempt has failed: it takes 30 us to set up and run one call that
        succeeds, which is as much as all else this room does for a request.
        """
        begun_s = self._clock.monotonic_s()
        try:
            return await attempt()
        except Failed as first:
            if not first.again or self._retries < 1:
                raise first.refusal from first
            return await self._retry(attempt, first, begun_s)

    async def _retry(self, attempt: Callable[[], Awaitable[T]], first: Failed, begun_s: float) -> T:
        past = [first]

        async def first_is_past() -> T:
            if past:
                raise past.pop()
            return await attempt()

        def enough(state: RetryCallState) -> bool:
            waiting_s = self._clock.monotonic_s() - begun_s + state.upcoming_sleep
            return (
                state.attempt_number > self._retries
                or waiting_s > self._deadline_s
                or state.upcoming_sleep > LONGEST_WAIT_S
            )

        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=enough,
            wait=self._wait_s,
            retry=retry_if_exception(lambda fault: isinstance(fault, Failed) and fault.again),
            reraise=True,
        )
        try:
            return await retrying(first_is_past)
        except Failed as last:
            raise last.refusal from last

    def _wait_s(self, state: RetryCallState) -> float:
        """What the provider asked for; else 0.5, 1, 2 ... seconds, less up to a half so that callers spread."""
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, Failed) and fault.wait_s is not None:
            return fault.wait_s
        longest: float = min(FIRST_WAIT_S * 2 ** (state.attempt_number - 1), LONGEST_WAIT_S)
        return longest * (1 - self._jitter() / 2)
