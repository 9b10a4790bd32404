"""One replica among others: its heartbeat, what the others changed, and who has to be ended.

Owns: this process's row among the replicas, when another counts as dead, and that whatever a dead one left open is
ended exactly once. Never does: decide anything about an action. Fails closed: a replica that was ended by another can
make nothing durable any more, and its process stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from gateway import tasks
from gateway.clock import Clock, rfc3339
from gateway.errors import Refusal
from gateway.store.database import LostError
from gateway.store.interface import Connection, Store
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.beside import Beside

TICK_S = 0.25  # how soon a change is seen where no signal came
BEAT_S = 1.0
DEAD_AFTER_S = 5.0  # silent for so long is dead
SURE_AFTER_S = 6.0  # whoever could not beat itself for a while waits so long before it judges others

log = structlog.get_logger("gateway.replicas")

# Ends what a dead replica left open; how many intents that were.
EndFor = Callable[[str], Awaitable[int]]
# Gives back what it held of limits.
Release = Callable[[str], Awaitable[None]]


REVISIONS = ("policy", "configuration", "registry")
SINCE = "since_ns"
"""In what a replica tells: when its newest revision came into force there."""


def described(known: list[rows.Replica]) -> list[dict[str, Any]]:
    """Replicas for people and machines. `lags`: the revisions in which one differs from the newest that runs."""
    running = [one for one in known if not one.ended]
    newest = max(running, key=lambda one: int(one.told.get(SINCE) or 0), default=None)
    found = []
    for one in known:
        lags = [
            name
            for name in REVISIONS
            if newest is not None and not one.ended and one.told.get(name) != newest.told.get(name)
        ]
        found.append(
            {
                "id": one.id,
                "name": one.name,
                "url": one.url,
                "version": one.version,
                "state": "ended" if one.ended else "silent" if one.silent_s > DEAD_AFTER_S / 2 else "running",
                "started": rfc3339(one.started_ns),
                "silent_s": round(one.silent_s, 1),
                "degraded": one.told.get("degraded", ""),
                "policy_server": one.told.get("policy_server", ""),
                "lags": lags,
                **{name: one.told.get(name) for name in REVISIONS},
            }
        )
    return found


class _Beats:
    """A `store.Group` whose items are what this replica tells of itself."""

    def __init__(self, replica: str) -> None:
        self._replica = replica

    def alone(self, _item: Any) -> bool:
        return False

    def apply(self, connection: Connection, items: list[Any]) -> list[Any]:
        url, told = items[-1]
        rows.tell(connection, self._replica, url=url, told=told)
        return [None] * len(items)

    def committed(self) -> None:
        """Nothing is kept here."""

    def undone(self) -> None:
        """Nothing is kept here."""


class Replicas:
    """This replica's view of all. `register` before anything is written, then `start`, at the end `stop`."""

    def __init__(self, url: str, replica: str, *, name: str, version: str, clock: Clock) -> None:
        self.id = replica
        self.name = name
        self.url = ""
        self.told: Callable[[], dict[str, str]] = dict
        """What is told to the others with each heartbeat."""
        self.on_changed: dict[str, Callable[[], Awaitable[None]]] = {}
        """By topic, who reads anew what another replica changed."""
        self._version = version
        self._clock = clock
        self._beside = Beside(url, name=f"gateway replica {replica}")
        self._store: Store | None = None
        self._end_for: EndFor | None = None
        self._release: Release | None = None
        self._beats = _Beats(replica)
        self._versions: dict[str, int] = {}  # that memory is at least as new as
        self._reading = asyncio.Lock()
        self._rereads = 0
        self._beaten_s: float | None = None  # when the last heartbeat was durable
        self._sure_from_s = float("inf")  # from then on this replica may judge others
        self._tasks: list[asyncio.Task[None]] = []
        self._registered = False

    async def register(self) -> None:
        """Take a row. Raises LostError where the database can't be reached."""
        await asyncio.to_thread(
            self._beside.run, lambda c: rows.register(c, self.id, name=self.name, version=self._version)
        )
        self._registered = True

    async def start(self, store: Store, *, end_for: EndFor, release: Release) -> None:
        """Begin to beat and to watch."""
        self._store, self._end_for, self._release = store, end_for, release
        self._versions = await store.read(rows.versions)
        self._sure_from_s = self._clock.monotonic_s() + SURE_AFTER_S
        self._tasks = [
            asyncio.create_task(self._keep_watching(), name="replicas-watch"),
            asyncio.create_task(self._keep_ending(), name="replicas-end"),
        ]

    async def stop(self) -> None:
        """End this replica: what it left open is nobody's but the others' from here on."""
        await tasks.end(self._tasks)
        if self._registered:
            with contextlib.suppress(LostError):  # the others find out by its silence
                await asyncio.to_thread(self._beside.run, lambda c: rows.end(c, self.id))
        await asyncio.to_thread(self._beside.close)

    async def known(self) -> list[rows.Replica]:
        """All replicas that run, and those that ended lately."""
        assert self._store is not None
        return await self._store.read(rows.known)

    async def holding(self) -> set[str]:
        """Ids of those that may hold something of limits."""
        assert self._store is not None
        return await self._store.read(rows.holding)

    # ------------------------------------------------------------ what others changed

    async def catch_up(self, topic_told: str = "") -> bool:
        """Read anew what was changed since this replica last looked; whether anything was, by whoever came first.

        `topic_told`: another replica says that it changed this one. It is read in any case, since somebody else may
        hold its count down in the database.
        Raises Refusal(store_unavailable) where nobody can tell.
        """
        assert self._store is not None
        before = self._rereads  # of many that look at once, one reads; what they missed came for all of them
        async with self._reading:
            found = await self._store.read(rows.versions)
            # What nobody reads anew yet, as while this replica starts, has not been seen.
            for topic, reread in self.on_changed.items():
                if topic == topic_told or found.get(topic, 0) != self.version(topic):
                    await reread()
                    self._versions[topic] = found.get(topic, 0)
                    self._rereads += 1
            return self._rereads != before

    def version(self, topic: str) -> int:
        """How often a topic was changed, as far as memory has it."""
        return self._versions.get(topic, 0)

    def changed(self, topic: str, version: int) -> None:
        """This replica made a topic's next version, durably, out of the one that it had seen."""
        self._versions[topic] = version

    # ------------------------------------------------------------ watching

    async def _keep_watching(self) -> None:
        beat_s = float("-inf")
        while True:
            now_s = self._clock.monotonic_s()
            try:
                if now_s - beat_s >= BEAT_S:
                    beat_s = now_s
                    await self._beat()
                await self.catch_up()
            except Refusal as refusal:  # away or slow; the writer refuses for itself meanwhile
                self._sure_from_s = self._clock.monotonic_s() + SURE_AFTER_S
                log.warning("replica_tick", code=refusal.code, message=refusal.message)
            except Exception:
                log.exception("replica_tick_fault")
            await asyncio.sleep(TICK_S)

    async def _keep_ending(self) -> None:
        """Beside the watch: a dead one may have left much open, and Redis may be away, which has to be told of it."""
        while True:
            try:
                await self._end_silent()
                await self._end_left_open()
            except Refusal as refusal:
                log.warning("replica_end", code=refusal.code, message=refusal.message)
            except Exception:
                log.exception("replica_end_fault")
            await asyncio.sleep(BEAT_S)

    async def _beat(self) -> None:
        assert self._store is not None
        await self._store.submit(self._beats, (self.url, self.told()))
        now_s = self._clock.monotonic_s()
        if self._beaten_s is not None and now_s - self._beaten_s > DEAD_AFTER_S / 2:
            # Perhaps it was the database that stood still, and the others could not beat either.
            self._sure_from_s = now_s + SURE_AFTER_S
        self._beaten_s = now_s

    @property
    def silent(self) -> str | None:
        """That the database takes no heartbeats of this replica, in a sentence; it stands still, or this one did."""
        silent_s = 0.0 if self._beaten_s is None else self._clock.monotonic_s() - self._beaten_s
        if silent_s <= DEAD_AFTER_S / 2:
            return None
        return f"PostgreSQL has taken no heartbeat of this replica for {silent_s:.0f} s."

    def _is_sure(self) -> bool:
        """Whether the silence of another is its own: this one could beat, and has been able to for long enough."""
        now_s = self._clock.monotonic_s()
        beats = self._beaten_s is not None and now_s - self._beaten_s <= DEAD_AFTER_S / 2
        return beats and now_s >= self._sure_from_s

    async def _end_silent(self) -> None:
        assert self._store is not None
        if not self._is_sure():
            return
        silent = await self._store.read(lambda c: rows.silent(c, DEAD_AFTER_S))
        for replica in silent if self._is_sure() else ():  # where not, the database stood still under that question
            if replica != self.id and await self._store.write(partial(rows.end, replica=replica, after_s=DEAD_AFTER_S)):
                log.warning("replica_ended", replica=replica, silent_s=DEAD_AFTER_S)

    async def _end_left_open(self) -> None:
        assert self._store is not None
        assert self._end_for is not None
        assert self._release is not None
        found = await self._store.read(rows.unreleased)
        left: set[str] = set()  # what these hold of limits stays held: nobody knows what their open intents spent
        for replica, open_intents in found:
            if not open_intents:
                continue
            try:
                ended = await self._end_for(replica)
            except Refusal:
                raise
            except Exception:  # of this one; the others are ended all the same
                log.exception("replica_end_fault", replica=replica)
                ended = 0
            log.warning("replica_left_open", replica=replica, intents=open_intents, ended=ended)
            if ended < open_intents:
                left.add(replica)
        for replica, _ in found:
            if replica not in left:
                await self._release(replica)
                await self._store.write(partial(rows.released, replica=replica))
