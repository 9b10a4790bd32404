"""`SharedLog`: the log of one tenant in a database that replicas share.

A record is durable when `append` returns, as in the embedded log; its place and its signature follow: one replica at
a time places and signs for all. Every replica keeps the newest checkpoint that it saw in a file of its own, so that a
database which was put back to an older state is told by whoever remembers. Fails closed: a log that is not as it was
signed latches, and a replica whose keys are not those of the others does not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.audit import keys as key_files
from gateway.audit import reaper, row_sealing
from gateway.audit.anchor import Anchor, restore_shared
from gateway.audit.appending import Appending
from gateway.audit.files import replace_durably
from gateway.audit.ingest import Ingest
from gateway.audit.leaf import Entry
from gateway.audit.recorded import SEALED, Waiting
from gateway.audit.sequencer import MOST_AT_ONCE, Sequencer, Step
from gateway.audit.vault import Vault
from gateway.clock import Clock, Ids
from gateway.errors import Refusal
from gateway.store.database import LostError
from gateway.store.interface import Connection, Store
from gateway.store.postgres.beside import Beside
from gateway.store.postgres.shared_keys import same_keys

HEARTBEAT_S = 60.0
_STEP_S = 0.1
_SIGN_AFTER_S = 0.5
_LOOK_S = 1.0  # how often a replica that does not place looks for a newer checkpoint
_PAUSE_S = 0.5  # after the database was not there
_CATCH_UP_S = 5.0
_STUCK_S = 10.0  # longer than another replica takes to go on where a dead one left

_log = logging.getLogger("gateway.audit")


class SharedLog(Appending):
    """One replica's end of the log. Made by `SharedLog.open`; then `start`, at the end `stop`."""

    def __init__(
        self,
        data_dir: Path,
        url: str,
        replica: str,
        store: Store,
        keys: key_files.Keys,
        vault: Vault,
        *,
        tenant: str,
        env: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        ingest = Ingest(vault, clock, ids.new, env=env, replica=replica, key=keys.queue)
        super().__init__(store, keys, vault, ingest, tenant=tenant, clock=clock, ids=ids, shared=True)
        self.is_sequencer = False
        self._replica = replica
        self._ingest = ingest
        self._keys = keys
        self._folder = data_dir / "audit"
        self._anchor = Anchor(self._folder / "checkpoint")
        self._beside = Beside(url, name=f"gateway sequencer {replica}")
        self._sequencer = Sequencer(
            keys.signer,
            tenant=tenant,
            replica=replica,
            key=keys.queue,
            now_ns=clock.now_ns,
            anchored=self._anchor.read,
        )
        self._waiting = 0
        self._first: int | None = None  # of those that wait, and since when (monotonic)
        self._first_s = 0.0
        self._size = 0
        self._signed_size = 0  # of the checkpoint in this replica's own file
        self._told_signed = 0
        self._unsigned_since_s: float | None = None
        self._looked_s = float("-inf")
        self._beat_s = clock.monotonic_s()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = asyncio.Lock()

    @classmethod
    def open(
        cls,
        data_dir: Path,
        store: Store,
        *,
        url: str,
        replica: str,
        keys_dir: Path,
        origin: str,
        capture: str = "full",
        payload_cap_bytes: int = 262_144,
        tenant: str = "default",
        env: str = "dev",
        clock: Clock,
        ids: Ids,
        random_bytes: Callable[[int], bytes] = key_files.system_random,
    ) -> SharedLog:
        """Read the keys that the replicas share. Raises Refusal(audit_unavailable) where one is missing."""
        (data_dir / "audit").mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = key_files.load(keys_dir, origin, create=False, random_bytes=random_bytes)
        vault = Vault(
            keys.wrapping, keys.wrapping_id, capture=capture, cap_bytes=payload_cap_bytes, random_bytes=random_bytes
        )
        return cls(data_dir, url, replica, store, keys, vault, tenant=tenant, env=env, clock=clock, ids=ids)

    # ------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Check keys and log against what the replicas share, and begin. Raises Refusal(audit_unavailable)."""
        await self.writer.write(partial(same_keys, fingerprints=self._keys.fingerprints))
        note = await asyncio.to_thread(self._anchor.read)
        await asyncio.to_thread(replace_durably, self._folder / "vkey", self.vkey.encode() + b"\n")
        restored = await self.writer.read(lambda c: restore_shared(c, note, self._verifier))
        self.recorder.hold_against(restored.frontier)
        self._size, self._signed_size = restored.frontier.size, restored.signed_size
        if await self.writer.read(row_sealing.is_wanted):
            raise Refusal(
                "audit_unavailable",
                "Rows of the database were not compared with the log after its schema was brought up to date: run "
                "`gateway migrate` to the end, then start the replicas.",
            )
        self._accepting = True
        await self.append(self._event("gateway.start", replica=self._replica, vkey=self.vkey, **SEALED))
        self._tasks = [
            asyncio.create_task(self._keep_placing(), name="audit-sequencer"),
            asyncio.create_task(self._keep_beating(), name="audit-heartbeat"),
            asyncio.create_task(self._keep_counting(), name="audit-queue"),
        ]

    async def stop(self, settle: reaper.Settle | None = None, lost: reaper.Lost | None = None) -> None:
        """End what is still open here as `unknown`, write `gateway.stop`, place and sign if it is this one's turn."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._accepting:
            self._accepting = False
            await self._leave(settle, lost)
        await asyncio.to_thread(self._beside.close)

    async def _leave(self, settle: reaper.Settle | None, lost: reaper.Lost | None) -> None:
        try:
            entries = await self.writer.write(
                lambda c: self._endings(c, "gateway_stopped", settle, lost, self._replica, foreign=False)
            )
            entries.append(self._event("gateway.stop", replica=self._replica, **self._counts()))
            await self.writer.submit(self._ingest, tuple(entries))
            await self._place()
            await self._sign()
            if self.is_sequencer:
                await self.recorder.follow(self._clock.now_ns(), saves=True)
        except (Refusal, LostError) as error:
            _log.error("the log could not be closed, another replica will say so: %s", error)

    async def end_for(self, replica: str, settle: reaper.Settle | None = None, lost: reaper.Lost | None = None) -> int:
        """Give every open intent of an ended replica its one result, `unknown`; how many.

        Another replica may do the same at the same time: each intent is ended by one of them.
        """
        async with self._ending:  # of two in one transaction, neither would see what the other one ends
            entries = await self.writer.read(
                lambda c: self._endings(c, "replica_ended", settle, lost, replica, foreign=True)
            )
            for entry in entries:
                try:
                    await self.append(entry)
                except Refusal as refusal:
                    if refusal.code != "conflict":
                        raise
            return len(entries)

    def _endings(
        self,
        connection: Connection,
        code: str,
        settle: reaper.Settle | None,
        lost: reaper.Lost | None,
        replica: str,
        *,
        foreign: bool,
    ) -> list[Entry]:
        return list(
            reaper.endings(
                connection,
                code,
                settle,
                lost,
                on_record=self._open_on_record,
                macs=self.macs,
                replica=replica,
                foreign=foreign,
                waiting=self._ingest.is_of_a_replica,
            )
        )

    # ------------------------------------------------------------ placing and signing

    async def _keep_placing(self) -> None:
        while True:
            pause_s = _STEP_S
            try:
                step = await self._place()
                if step.moved is None:
                    await self._look()
                else:
                    await self._sign_if_due()
                    pause_s = 0.0 if step.moved == MOST_AT_ONCE else _STEP_S
            except LostError as error:
                self._sequencer.lost()
                _log.warning("the sequencer waits for the database: %s", error)
                pause_s = _PAUSE_S
            except Refusal as refusal:
                if refusal.code == "audit_unavailable":
                    self.writer.latch(refusal.message)
                    return
                _log.warning("the sequencer was refused: %s", refusal.message)
                pause_s = _PAUSE_S
            except Exception:  # noqa: BLE001 - a fault of ours must not leave records without a place for ever
                self._sequencer.lost()
                _log.exception("sequencer_fault")
                pause_s = _PAUSE_S
            await asyncio.sleep(pause_s)

    async def _place(self) -> Step:
        step = await asyncio.to_thread(self._beside.run, self._sequencer.step)
        self._sequencer.placed(step)
        self.is_sequencer = step.moved is not None
        if step.moved is not None:
            self._size = step.size
            if step.moved < MOST_AT_ONCE:
                self._waiting = 0
        return step

    async def _sign_if_due(self) -> None:
        if self._size <= self._signed_size:
            self._unsigned_since_s = None
            return
        now_s = self._clock.monotonic_s()
        if self._unsigned_since_s is None:
            self._unsigned_since_s = now_s
        if now_s - self._unsigned_since_s >= _SIGN_AFTER_S:
            self._unsigned_since_s = None
            await self._sign()

    async def _sign(self) -> None:
        checkpoint = self._sequencer.checkpoint()
        if checkpoint is None or checkpoint.size <= self._signed_size:
            return
        note = await asyncio.to_thread(self._beside.run, lambda c: self._sequencer.sign(c, checkpoint))
        if note is not None:
            await self._keep(checkpoint.size, note)

    async def _look(self) -> None:
        """What the sequencer of now has signed."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        row = await self.writer.read(
            lambda c: c.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        )
        if row is not None and row[0] > self._signed_size:
            await self._keep(int(row[0]), bytes(row[1]))
            self._size = max(self._size, int(row[0]))

    async def _keep(self, size: int, note: bytes) -> None:
        try:
            await asyncio.to_thread(self._anchor.replace, note)
        except OSError as error:
            self.writer.latch(f"the signed checkpoint could not be written ({error})")
            return
        self._signed_size = size

    # ------------------------------------------------------------ the rest

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                self.append_soon(self._event("gateway.heartbeat", replica=self._replica, **self._counts()))
            except Refusal as refusal:
                _log.warning("no heartbeat was recorded: %s", refusal.message)

    async def _keep_counting(self) -> None:
        """Whoever places records: what waits for it is seen by all."""
        while True:
            with contextlib.suppress(Refusal):  # the database is away, and that is told by itself
                count, first = await self.writer.read(
                    lambda c: c.execute("SELECT count(*), min(seq) FROM ingest").fetchone() or (0, None)
                )
                self._waiting = int(count)
                if first != self._first:
                    self._first, self._first_s = first, self._clock.monotonic_s()
                if self.is_sequencer:
                    await self.recorder.follow(self._clock.now_ns())
            await asyncio.sleep(_LOOK_S)

    def _unplaced(self, connection: Connection, about: str = "") -> list[Waiting]:
        """See `Appending`; only those that a replica wrote."""
        return [
            (record_id, bytes(body))
            for record_id, body, mac in connection.execute("SELECT id, body, mac FROM ingest ORDER BY seq")
            if about.encode() in bytes(body) and self._ingest.is_of_a_replica(record_id, bytes(body), bytes(mac))
        ]

    def fault(self) -> str | None:
        """Why records have had no place in the log for a while; None where they have."""
        waits_s = 0.0 if self._first is None else self._clock.monotonic_s() - self._first_s
        if waits_s < _STUCK_S:
            return None
        return (
            f"{self._waiting} records, durable but not signed, have waited {waits_s:.0f} s for their place in the log;"
            " the log lines `sequencer_fault` of the replicas say why."
        )

    @property
    def unsigned(self) -> int:
        """See `Appending.unsigned`; what waits for its place is counted about once a second."""
        return super().unsigned + self._waiting

    @property
    def size(self) -> int:
        """Records that have their place, as far as this replica knows."""
        return self._size

    @property
    def signed_size(self) -> int:
        """Records that the newest checkpoint covers, as far as this replica knows."""
        return max(self._signed_size, self._told_signed)

    @property
    def open_intents(self) -> int:
        """Intents in flight here."""
        return len(self._ingest.open)

    async def caught_up(self) -> None:
        """Until what is durable now has its place. Raises Refusal(store_unavailable) where that takes too long."""
        newest = await self.writer.read(lambda c: c.execute("SELECT max(seq) FROM ingest").fetchone()[0])
        deadline_s = self._clock.monotonic_s() + _CATCH_UP_S
        waits = "SELECT 1 FROM ingest WHERE seq <= ? LIMIT 1"
        while newest is not None and await self.writer.read(lambda c: c.execute(waits, (newest,)).fetchone()):
            if self._clock.monotonic_s() > deadline_s:
                raise Refusal(
                    "store_unavailable",
                    "The newest records have no place in the log yet, since no replica is placing them; try again.",
                    retry_after_s=2,
                )
            await asyncio.sleep(_STEP_S / 4)
        signed = await self.writer.read(lambda c: c.execute("SELECT max(size) FROM checkpoint").fetchone()[0])
        self._told_signed = int(signed or 0)
