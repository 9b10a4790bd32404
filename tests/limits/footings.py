"""Limits as a gateway has them on each footing: made anew, made again after a crash, and told what the reaper found."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Protocol

from gateway.actions import Action, Reservation, Target
from gateway.clock import Clock
from gateway.limits import AllowanceTable, Limits, MemoryLimits, read_spend
from gateway.limits.redis import RedisLimits, SharedAdmission
from gateway.limits.spend import ReplicaSpend, read_all_spend

NOON_NS = 1_795_348_800_000_000_000  # 2026-11-22T12:00:00Z


class MakeLimits(Protocol):
    """One footing."""

    async def __call__(self, clock: Clock, table: AllowanceTable) -> Limits:
        """Limits of a first process, of which nothing was spent yet."""
        ...

    async def again(self, clock: Clock, table: AllowanceTable, disk: sqlite3.Connection) -> Limits:
        """Limits of the next process, after those made before have died. `disk` holds what was spent."""
        ...

    async def reap(self, limits: Limits, dead: Reservation, now_ns: int, disk: sqlite3.Connection) -> None:
        """An action of a process that died is ended: nobody knows how."""
        ...

    async def released(self, limits: Limits, disk: sqlite3.Connection) -> None:
        """All that former processes held is given back: `disk` says what they spent."""
        ...

    async def close(self) -> None:
        """End all that was made."""
        ...


class Embedded:
    """One process and its memory."""

    async def __call__(self, clock: Clock, table: AllowanceTable) -> MemoryLimits:
        return MemoryLimits(clock, table)

    async def again(self, clock: Clock, table: AllowanceTable, disk: sqlite3.Connection) -> MemoryLimits:
        limits = MemoryLimits(clock, table)
        limits.restore(read_spend(disk, limits.windows()))
        return limits

    async def reap(self, limits: Limits, dead: Reservation, now_ns: int, disk: sqlite3.Connection) -> None:
        limits.persist_unknown(dead, now_ns)(disk)

    async def released(self, limits: Limits, disk: sqlite3.Connection) -> None:
        """What a process holds ends with it."""

    async def close(self) -> None:
        """Memory needs no end."""


class Ticking(RedisLimits):
    """A replica whose ticks never stop, whatever a test does to the clock."""

    async def admit(self, action: Action) -> SharedAdmission:
        await self.tick()
        return await super().admit(action)

    async def reserve(self, action: Action, target: Target) -> Reservation:
        await self.tick()
        return await super().reserve(action, target)


class OnRedis:
    """One replica after another, on a Redis that is empty at first."""

    def __init__(self, url: str, *, ticking: bool = True) -> None:
        self._url = url
        self._kind = Ticking if ticking else RedisLimits
        self._made: list[RedisLimits] = []

    async def __call__(self, clock: Clock, table: AllowanceTable) -> RedisLimits:
        return await self._make(clock, table, None)

    async def again(self, clock: Clock, table: AllowanceTable, disk: sqlite3.Connection) -> RedisLimits:
        limits = await self._make(clock, table, disk)
        await self.released(limits, disk)
        return limits

    async def reap(self, limits: Limits, dead: Reservation, now_ns: int, disk: sqlite3.Connection) -> None:
        assert isinstance(limits, RedisLimits)
        limits.persist_unknown(dead, now_ns, replica="replica-0")(disk)
        await self.released(limits, disk)

    async def _make(self, clock: Clock, table: AllowanceTable, disk: sqlite3.Connection | None) -> RedisLimits:
        async def read_all(windows: Sequence[str]) -> Iterable[ReplicaSpend]:
            return [] if disk is None else read_all_spend(disk, windows)

        async def live() -> set[str]:
            return {replica}

        replica = f"replica-{len(self._made) + 1}"
        limits = self._kind(self._url, replica=replica, clock=clock, read_all=read_all, live=live, table=table)
        self._made.append(limits)
        limits.of_installation("installation")
        await limits.start()
        return limits

    async def released(self, limits: Limits, disk: sqlite3.Connection) -> None:
        assert isinstance(limits, RedisLimits)
        rows = read_all_spend(disk, limits.window_names())
        for number in range(len(self._made)):
            dead = f"replica-{number}"
            mine = [(tenant, level, window, usd, n) for tenant, level, window, one, usd, n in rows if one == dead]
            await limits.ended(dead, mine)
        for agent in ("reader", "writer"):  # what it shows of what others hold is what it heard last
            limits.remaining(agent, "ada")
        await limits.tick()

    async def close(self) -> None:
        for limits in self._made:
            await limits.close()
