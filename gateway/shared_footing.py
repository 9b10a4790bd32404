"""The footing of many replicas: PostgreSQL, Redis, and signals between them. Imported only where configured."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import structlog

from gateway import __version__, tasks
from gateway.approvals import Approvals
from gateway.audit.comparing import suspended
from gateway.audit.reaper import Lost, Settle
from gateway.audit.shared import SharedLog
from gateway.audit.source import PostgresSource
from gateway.clock import Clock, Ids
from gateway.config import Config
from gateway.errors import Refusal
from gateway.footing import Change, host_name
from gateway.identity.journal import OutdatedError
from gateway.identity.registry import Registry
from gateway.keys import fingerprints
from gateway.limits import table_of
from gateway.limits.redis import RedisLimits
from gateway.limits.spend import ReplicaSpend, SpendTable
from gateway.limits.windows import names_in, zone_suffix
from gateway.process import Process
from gateway.replicas import Replicas, described
from gateway.signals import Signals
from gateway.store import DirectoryLock, Writer
from gateway.store.database import LostError
from gateway.store.interface import Connection
from gateway.store.postgres import PostgresDatabase, schema
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.installation import installation
from gateway.store.postgres.shared_keys import same_keys

_TOPICS = ("agent", "key", "person")
LOOK_S = 1.0  # how soon who waits here hears of a case of which no signal came
_ASK_S = 0.5  # a suspended agent's streams have a second
_LOOK_AROUND_EVERY = 10  # looks: cases and kept answers of which no signal came

log = structlog.get_logger("gateway.footing")


class Shared:
    """See `footing.Footing`."""

    def __init__(self, process: Process, clock: Clock, ids: Ids) -> None:
        assert process.database_url is not None
        assert process.redis_url is not None
        self.replica = ids.new()
        self.keys_dir = process.keys_dir or process.data_dir / "keys"
        self._process = process
        self._url = process.database_url.get_secret_value()
        self._clock = clock
        self._ids = ids
        self._registry: Registry | None = None
        self._approvals: Approvals | None = None
        self._doubt: Callable[[str], None] = lambda _: None
        self._looking: asyncio.Task[None] | None = None
        self._has_writer = False
        self._has_limits = False
        self.group = Replicas(self._url, self.replica, name=host_name(), version=__version__, clock=clock)
        self.signals = Signals(process.redis_url.get_secret_value(), self.replica)
        self.limits = RedisLimits(
            process.redis_url.get_secret_value(),
            replica=self.replica,
            clock=clock,
            read_all=self._read_spend,
            live=self.group.holding,
        )

    # ------------------------------------------------------------ start

    def source(self) -> PostgresSource:
        """See `Footing.source`."""
        return PostgresSource(self._url, self._process.data_dir, self.keys_dir)

    async def open(self, config: Config) -> SharedLog:
        """See `Footing.open`. The schema must be up to date: `gateway migrate` does that, once for all replicas."""
        self.limits.reconfigure(table_of(config.limits))  # in whose time zone the windows are named
        # What remembers the newest checkpoint belongs to one replica.
        self._process.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = DirectoryLock(self._process.data_dir)
        try:
            await self._reach()
            self.log = SharedLog.open(
                self._process.data_dir,
                self.writer,
                url=self._url,
                replica=self.replica,
                keys_dir=self.keys_dir,
                origin=config.audit.origin,
                capture=config.audit.capture,
                payload_cap_bytes=config.audit.payload_cap_bytes,
                env=config.environment,
                clock=self._clock,
                ids=self._ids,
            )
        except BaseException:  # leave nothing open, nor a row by which the others would wait for its silence
            await self.group.stop()
            if self._has_writer:
                await self.writer.close()
            self._lock.release()
            raise
        self.limits.spend_table = SpendTable(self.log.macs)
        self.log.recorder.count_in(zone_suffix(self.limits.windows().zone), names_in)
        return self.log

    async def _reach(self) -> None:
        try:
            await asyncio.to_thread(schema.check, self._url)
            await self.group.register()
            self.writer = Writer(await asyncio.to_thread(PostgresDatabase, self._url, self.replica))
            self._has_writer = True
            self._installation = await self.writer.read(installation)
            self.limits.of_installation(self._installation)
        except LostError as error:
            raise Refusal(
                "store_unavailable", f"PostgreSQL can't be reached: {error}; correct GATEWAY_DATABASE_URL or start it."
            ) from error

    async def begin(self, settle: Settle, lost: Lost) -> frozenset[str]:
        """See `Footing.begin`. What ended replicas left open is ended by `replicas`."""
        await self.writer.write(partial(same_keys, fingerprints=fingerprints(self.keys_dir)))
        await self.log.start()
        self.writer.is_late = lambda: self.group.silent is not None
        await self.group.start(self.writer, end_for=partial(self._end_for, settle, lost), release=self._release)
        recorded = await self.log.compare_rows()
        self._has_limits = True
        await self.limits.start()
        return suspended(recorded)

    async def _end_for(self, settle: Settle, lost: Lost, replica: str) -> int:
        ended = await self.log.end_for(replica, settle=settle, lost=lost)
        if self._approvals is not None:  # what nobody knows of may be a case by now
            await self._approvals.look_around()
        return ended

    async def join(
        self,
        registry: Registry,
        approvals: Approvals,
        told: Callable[[], dict[str, str]],
        doubt: Callable[[str], None],
    ) -> None:
        """See `Footing.join`."""
        self._registry, self._approvals, self._doubt = registry, approvals, doubt
        self.group.told = told
        registry.follow(self.group.catch_up)
        for topic in _TOPICS:
            self.group.on_changed[topic] = partial(self._reload, registry, topic)
        approvals.on_told = partial(self.signals.tell, "case")
        approvals.on_kept = lambda digest, until_ns: self.signals.tell("answer", f"{digest} {until_ns}")
        self.signals.handlers = {
            "case": approvals.noticed,
            "answer": self._answer_kept,
            "changed": self._changed,
        }
        self.signals.on_gap = self._look_around
        self.signals.start(self._installation)
        self._looking = asyncio.create_task(self._keep_looking(approvals), name="look-around")

    # ------------------------------------------------------------ what replicas tell each other

    def riding(self, topic: str, also: Change | None) -> Change | None:
        """See `Footing.riding`."""
        if topic not in _TOPICS:
            return also
        seen = self.group.version(topic)  # and whoever makes this change has decided on that

        def both(connection: Connection) -> None:
            if not rows.bump(connection, topic, seen):
                raise OutdatedError(topic)
            if also is not None:
                also(connection)

        return both

    def told(self, topic: str, *, suspended: str | None = None) -> None:
        """See `Footing.told`. Nobody else has changed it since `riding`: registers make one change at a time."""
        if topic in _TOPICS:
            self.group.changed(topic, self.group.version(topic) + 1)
            self.signals.tell("changed", topic if suspended is None else f"{topic} {suspended}")

    async def look_again(self) -> bool:
        """See `Footing.look_again`. Raises Refusal(store_unavailable) where nobody can tell."""
        return await self.group.catch_up()

    async def _reload(self, registry: Registry, topic: str) -> None:
        """Another replica changed a register; an older row may have been put back since."""
        await self.log.compare_registers()
        await registry.reload(topic, self.writer)

    async def _changed(self, what: str) -> None:
        topic, _, suspended = what.partition(" ")
        try:
            async with asyncio.timeout(_ASK_S if suspended else None):
                await self.group.catch_up(topic)
        except (
            Refusal,
            TimeoutError,
        ):  # whether it is so can't be asked; what such an agent runs must not outlive that
            if suspended:
                self._doubt(suspended)
            await self.group.catch_up()

    async def _answer_kept(self, what: str) -> None:
        digest, _, until_ns = what.partition(" ")
        if self._approvals is not None:
            self._approvals.expect_answer(digest, int(until_ns))

    async def _look_around(self) -> None:
        try:
            await self.group.catch_up()
            if self._approvals is not None:
                await self._approvals.look_around()
                await self._approvals.look_after_waiting()
        except Refusal as refusal:  # the next look comes soon
            log.warning("look_around", code=refusal.code, message=refusal.message)

    async def _keep_looking(self, approvals: Approvals) -> None:
        """Find what no signal told of. By itself: what asks Redis is slow where Redis is the reason."""
        for look in itertools.count(1):
            await asyncio.sleep(LOOK_S)
            try:
                await approvals.look_after_waiting()
                if look % _LOOK_AROUND_EVERY == 0 or not self.signals.is_connected:
                    await approvals.look_around()
            except Refusal as refusal:
                log.warning("look_around", code=refusal.code, message=refusal.message)
            except Exception:
                log.exception("look_around_fault")

    def serving_at(self, url: str) -> None:
        """See `Footing.serving_at`."""
        self.group.url = url

    async def replicas(self) -> list[dict[str, Any]]:
        """See `Footing.replicas`."""
        return described(await self.group.known())

    async def tick(self) -> None:
        """See `Footing.tick`."""
        await self.limits.tick()

    # ------------------------------------------------------------ limits

    async def _read_spend(self, windows: Sequence[str]) -> Iterable[tuple[str, str, str, str, int, int]]:
        """What each replica has spent, and no less than the log says."""
        await self.log.recorder.catch_up()
        table, recorder, names = self.limits.spend_table, self.log.recorder, tuple(windows)

        def read(db: Connection) -> list[ReplicaSpend]:
            return table.at_least(db, table.read_all(db, names), recorder.spent(db, names))

        return await self.writer.read(read)

    async def _release(self, replica: str) -> None:
        mine = [row for row in await self._read_spend(self.limits.window_names()) if row[3] == replica]
        await self.limits.ended(replica, [(tenant, level, window, usd, n) for tenant, level, window, _, usd, n in mine])

    # ------------------------------------------------------------ health and end

    def faults(self) -> dict[str, tuple[Callable[[], str | None], bool]]:
        """See `Footing.faults`."""
        return {
            "database": (lambda: self.writer.away or self.group.silent, True),
            "redis": (lambda: self.limits.away, True),
            "audit_queue": (lambda: self.log.fault(), False),
        }

    async def end(self, settle: Settle, lost: Lost) -> None:
        """See `Footing.end`."""
        if self._looking is not None:
            await tasks.end((self._looking,))
        await self.signals.stop()
        await self.log.stop(settle, lost)
        if self._has_limits:
            await self.limits.close()
        await self.group.stop()
        await self.writer.close()
        self._lock.release()
