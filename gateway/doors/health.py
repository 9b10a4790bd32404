"""What is not as it should be, and since when. Asked by probes and by people."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gateway.clock import Clock

Check = Callable[[], str | None]
"""What is wrong now, in one sentence for people; None if nothing is. Must not wait."""

_EVERY_S = 1.0


class Condition(NamedTuple):
    """One part of the gateway. `since_ns`: when it was first seen as it is now (wall clock)."""

    id: str
    reason: str | None
    since_ns: int
    needed: bool


class Health:
    """Keeps checks and notes when each began to fail. Needed ones decide whether the gateway is ready."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._checks: dict[str, tuple[Check, bool]] = {}
        self._seen: dict[str, tuple[bool, int]] = {}
        self.on_change: Callable[[Condition], None] = lambda _: None
        """Told of a part that begins to fail, and of one that no longer does."""

    def add(self, name: str, check: Check, *, needed: bool = False) -> None:
        """Watch `check`. `needed`: without it no traffic should come (`/readyz` answers 503)."""
        self._checks[name] = (check, needed)

    def conditions(self) -> list[Condition]:
        """Everything that is watched, looked at now."""
        found: list[Condition] = []
        for name, (check, needed) in self._checks.items():
            reason = check()
            failing = reason is not None
            seen = self._seen.get(name)
            if seen is not None and seen[0] == failing:
                found.append(Condition(name, reason, seen[1], needed))
                continue
            self._seen[name] = (failing, self._clock.now_ns())
            found.append(Condition(name, reason, self._seen[name][1], needed))
            if failing or seen is not None:
                self.on_change(found[-1])
        return found

    def unready(self) -> list[Condition]:
        """Needed parts that fail now."""
        return [one for one in self.conditions() if one.needed and one.reason is not None]

    def degraded(self) -> list[str]:
        """Names of the parts that fail now and that traffic can come without."""
        return [one.id for one in self.conditions() if not one.needed and one.reason is not None]

    async def watch(self) -> None:
        """Look once a second, so that `since_ns` is true although nobody asked. Runs until cancelled."""
        while True:
            self.conditions()
            await asyncio.sleep(_EVERY_S)
