"""Several replicas in one process, on one Redis, with a ledger of what all of them spent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.actions import Cost, ModelTarget, Reservation, Usage
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.limits import AllowanceTable
from gateway.limits.redis import RedisLimits
from gateway.limits.spend import ReplicaSpend, read_all_spend
from tests.limits.house import act, spend_table

_names = itertools.count(1)

CHEAP = ModelTarget(
    alias="cheap",
    provider="demo",
    model="cheap",
    input_nanousd_per_mtok=0,
    output_nanousd_per_mtok=1_000_000,  # one nano-dollar for each token of output, so that a cap is a price
    max_output_tokens=1,
)


class Open(NamedTuple):
    """A call under way at a replica."""

    replica: RedisLimits
    reservation: Reservation


class Replicas:
    """They live until `die`, and are told of as dead by `end`, as the database would."""

    def __init__(self, url: str, clock: Clock, table: AllowanceTable, installation: str = "installation") -> None:
        self.disk = spend_table()
        self.open: list[Open] = []
        self.settled = 0
        self.alive: dict[str, RedisLimits] = {}
        self.names: dict[RedisLimits, str] = {}
        self.unreleased: set[str] = set()  # that may hold something still
        self._url = url
        self._clock = clock
        self._table = table
        self._installation = installation
        self._made: list[RedisLimits] = []

    async def add(self, count: int = 1) -> list[RedisLimits]:
        """New replicas, joined."""
        made = []
        for _ in range(count):
            name = f"replica-{next(_names)}"
            replica = RedisLimits(
                self._url,
                replica=name,
                clock=self._clock,
                read_all=self._read_all,
                live=self._live,
                table=self._table,
            )
            self.alive[name] = replica
            self.names[replica] = name
            self.unreleased.add(name)
            made.append(replica)
            self._made.append(replica)
            replica.of_installation(self._installation)
            await replica.start()
        await self.tick()
        return made

    async def _read_all(self, windows: Sequence[str]) -> Iterable[ReplicaSpend]:
        return read_all_spend(self.disk, windows)

    async def _live(self) -> set[str]:
        return set(self.unreleased)

    async def tick(self, rounds: int = 1) -> None:
        """All that live tick."""
        for _ in range(rounds):
            for replica in self.alive.values():
                await replica.tick()

    async def call(self, replica: RedisLimits, nanousd: int, agent: str = "reader") -> Reservation | None:
        """Reserve so much, or be refused for want of budget."""
        try:
            reservation = await replica.reserve(act(agent, max_tokens=nanousd), CHEAP)
        except Refusal as refusal:
            if refusal.code != "budget_exhausted":
                raise
            return None
        self.open.append(Open(replica, reservation))
        return reservation

    def settle(self, one: Open, nanousd: int) -> None:
        """It cost so much after all."""
        self.open.remove(one)
        self.settled += nanousd
        one.replica.settle(one.reservation, Cost(nanousd=nanousd, usage=Usage(output_tokens=nanousd)))(self.disk)

    @property
    def used(self) -> int:
        """What all have spent and hold."""
        return self.settled + sum(one.reservation.nanousd for one in self.open)

    def die(self, replica: RedisLimits) -> None:
        """It ticks no more, and nobody knows yet."""
        del self.alive[self.names[replica]]

    async def end(self, replica: RedisLimits, by: RedisLimits) -> None:
        """Its open calls are booked in full, then its grants come back."""
        name = self.names[replica]
        for one in [one for one in self.open if one.replica is replica]:
            self.open.remove(one)
            self.settled += one.reservation.nanousd
            by.persist_unknown(one.reservation, self._clock.now_ns(), replica=name)(self.disk)
        rows = read_all_spend(self.disk, by.window_names())
        await by.ended(
            name, [(tenant, level, window, usd, n) for tenant, level, window, one, usd, n in rows if one == name]
        )
        self.unreleased.discard(name)

    async def close(self) -> None:
        """Close all that were made."""
        await asyncio.gather(*(replica.close() for replica in self._made))
