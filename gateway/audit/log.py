"""`AuditLog`: start, append, stop. The one object the rest of the gateway knows of this room.

A record is durable when `append` returns. Checkpoints follow off the path: at most a second after a record, and
at stop. When the disk says no the writer latches, and everything is refused until a restart.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from gateway.actions import Status
from gateway.audit import keys as key_files
from gateway.audit import reaper
from gateway.audit.anchor import Anchor, Restored, restore
from gateway.audit.chain import INTENT, RESULT, Chain
from gateway.audit.digests import Digester
from gateway.audit.files import replace_durably
from gateway.audit.gap import Gap, GapFile
from gateway.audit.leaf import CostPart, Entry, Leaf
from gateway.audit.notary import Notary
from gateway.audit.records import event
from gateway.audit.show import Shown, erase, open_payloads, show
from gateway.audit.vault import Vault
from gateway.audit.view import Filter, Page, View
from gateway.clock import Clock, Ids, SystemClock
from gateway.errors import Refusal
from gateway.store import Writer
from gateway.store.interface import Connection

HEARTBEAT_S = 60.0
_TICK_S = 0.25
_REMEMBERED = 4096  # refused actions kept apart, so that one action counts once

_log = logging.getLogger("gateway.audit")


class AuditLog:
    """The log of one tenant in one data directory. Made by `AuditLog.open`; then `start`, at the end `stop`."""

    def __init__(
        self,
        data_dir: Path,
        writer: Writer,
        keys: key_files.Keys,
        vault: Vault,
        *,
        tenant: str,
        env: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.tenant = tenant
        self.writer = writer
        self.vkey = keys.signer.verifier.vkey
        self.vault = vault
        self._folder = data_dir / "audit"
        self._verifier = keys.signer.verifier
        self._digester = Digester(keys.digest)
        self._clock = clock
        self._ids = ids
        self._anchor = Anchor(self._folder / "checkpoint")
        self._gap_file = GapFile(self._folder / "gap")
        self._chain = Chain(vault, clock, ids.new, env=env)
        self._notary = Notary(writer, self._chain, self._anchor, keys.signer, tenant=tenant, clock=clock)
        self._view = View(writer, tenant)
        self._unauthenticated = 0
        self._refused: dict[str, None] = {}
        self._refused_count = 0
        self._gap_told = -1
        self._beat_s = clock.monotonic_s()
        self._ticking: asyncio.Task[None] | None = None
        self._accepting = False

    @classmethod
    def open(
        cls,
        data_dir: Path,
        writer: Writer,
        *,
        origin: str,
        capture: str = "full",
        payload_cap_bytes: int = 262_144,
        tenant: str = "default",
        env: str = "dev",
        clock: Clock | None = None,
        ids: Ids | None = None,
        random_bytes: Callable[[int], bytes] = key_files.system_random,
    ) -> AuditLog:
        """Read the keys, or make them for a log that is still empty. Raises Refusal(audit_unavailable)."""
        clock = clock or SystemClock()
        (data_dir / "audit").mkdir(mode=0o700, exist_ok=True)
        is_new = not (data_dir / "audit" / "checkpoint").exists() and _is_empty(writer)
        keys = key_files.load(data_dir, origin, create=is_new, random_bytes=random_bytes)
        vault = Vault(
            keys.wrapping,
            keys.wrapping_id,
            capture=capture,
            cap_bytes=payload_cap_bytes,
            random_bytes=random_bytes,
        )
        ids = ids or Ids(clock, random_bytes)
        return cls(data_dir, writer, keys, vault, tenant=tenant, env=env, clock=clock, ids=ids)

    # ------------------------------------------------------------ start and stop

    async def start(self, settle: reaper.Settle | None = None, lost: reaper.Lost | None = None) -> None:
        """Check the log against its last checkpoint, end what a crash left open, and begin a new epoch.

        `settle(connection, reservation)` persists the reserved spend of an action that ended unknown, in the
        transaction of its result; `lost` may open a case for it there. Raises Refusal(audit_unavailable) if the log is
        not as it was signed; then nothing was written.
        """
        note = await asyncio.to_thread(self._anchor.read)
        await asyncio.to_thread(self._keep_vkey)
        gap = await asyncio.to_thread(self._gap_file.read)
        restored = await self.writer.read(lambda c: restore(c, note, self._verifier, self.tenant))
        open_intents = await self.writer.read(reaper.open_intents)
        last = None if restored.last is None else restored.last.writer
        writer_id = f"w-{self._ids.new()[-12:]}" if last is None else last.id
        self._chain.restore(restored.frontier, open_intents, writer_id, 1 if last is None else last.epoch + 1)
        self._notary.signed_size = restored.signed_size
        self._accepting = True
        entries = [self._event("gateway.start", previous=_previous(restored, gap), vkey=self.vkey)]
        if gap is not None and (gap.refused or not gap.final):
            known = "exact" if gap.final else "at least"
            entries.append(self._event("audit.gap", refused=str(gap.refused), count=known, reason=gap.reason))
        entries += await self.writer.read(lambda c: list(reaper.endings(c, "gateway_restarted", settle, lost)))
        await self.append(*entries)
        await asyncio.to_thread(self._gap_file.clear)
        await self._notary.sign()
        self._beat_s = self._clock.monotonic_s()
        self._ticking = asyncio.create_task(self._keep_ticking(), name="audit-tick")

    async def stop(self, settle: reaper.Settle | None = None, lost: reaper.Lost | None = None) -> None:
        """End what is still open as `unknown`, write `gateway.stop`, sign. Further appends are refused.

        After a latch it only notes how many were refused. Stopping twice does no harm.
        """
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
            self._ticking = None
        if not self._accepting:
            return
        self._accepting = False
        try:
            entries = await self.writer.write(lambda c: list(reaper.endings(c, "gateway_stopped", settle, lost)))
            entries.append(self._event("gateway.stop", **self._counts()))
            await self.writer.submit(self._chain, tuple(entries))
            await self._notary.sign()
        except Refusal as refusal:
            _log.error("the log could not be closed, the next start will say so: %s", refusal.message)
        if self.writer.latched is not None:
            gap = Gap(self.writer.latched, self._refused_count, final=True)
            await asyncio.to_thread(self._gap_file.note, gap)

    # ------------------------------------------------------------ append

    async def append(self, *entries: Entry) -> None:
        """Write the entries, all or none; they are durable when this returns.

        Raises Refusal(audit_unavailable) if they could not be made durable in time: then the action must not
        happen. Should the record have become durable all the same, its intent is ended as cancelled. A result tells
        of what has happened, so it is waited for however long that takes; a second one for an intent is a
        Refusal(conflict).
        """
        if not self._accepting:
            raise _stopped()
        certain = any(entry.leaf.type == RESULT for entry in entries)
        try:
            await self.writer.submit(self._chain, entries, partial(self._given_up, entries), certain=certain)
        except Refusal as refusal:
            self._count(refusal, entries)
            raise

    def append_soon(self, *entries: Entry) -> None:
        """Write the entries with the next commit. Raises Refusal(audit_unavailable) if that is already hopeless.

        Results are not refused for how much else is waiting: what they tell has happened already.
        """
        if not self._accepting:
            raise _stopped()
        certain = any(entry.leaf.type == RESULT for entry in entries)
        try:
            self.writer.submit_soon(self._chain, entries, certain=certain)
        except Refusal as refusal:
            self._count(refusal, entries)
            raise

    def note_unauthenticated(self) -> None:
        """Count a refusal of someone unknown; the heartbeat carries the sum, so that a stranger can't fill the disk."""
        self._unauthenticated += 1

    def digest(self, tenant: str, agent: str, user: str | None, target: str, arguments: dict[str, Any]) -> str:
        """Keyed digest of an action's identity over RFC 8785 bytes. Raises Refusal(malformed)."""
        return self._digester.digest(tenant, agent, user, target, arguments)

    def _given_up(self, entries: tuple[Entry, ...]) -> None:
        """The caller was refused or went away, yet the intent is durable: it needs its one result."""
        for entry in entries:
            if entry.leaf.type != INTENT:
                continue
            cost = CostPart("0", estimated=False)
            leaf = reaper.ending(entry.leaf, Status.CANCELLED, "audit_unavailable", cost)
            try:
                self.append_soon(Entry(leaf))
            except Refusal:
                return  # latched or stopping: the reaper ends it

    def _count(self, refusal: Refusal, entries: tuple[Entry, ...]) -> None:
        if refusal.code != "audit_unavailable":
            return
        for entry in entries:
            action = entry.leaf.action
            if action is not None:
                if action.id in self._refused:
                    continue
                if len(self._refused) < _REMEMBERED:
                    self._refused[action.id] = None
            self._refused_count += 1

    # ------------------------------------------------------------ the background

    async def tick(self) -> None:
        """What is due now: checkpoint, heartbeat, projection, or after a latch the count of refusals."""
        if self.writer.latched is not None:
            if self._gap_told != self._refused_count:
                self._gap_told = self._refused_count
                gap = Gap(self.writer.latched, self._refused_count)
                await asyncio.to_thread(self._gap_file.note, gap)
            return
        await self._notary.sign_if_due()
        now_s = self._clock.monotonic_s()
        if now_s - self._beat_s >= HEARTBEAT_S:
            self._beat_s = now_s
            self.append_soon(self._event("gateway.heartbeat", **self._counts()))
        await self._view.fill_behind(self.size)

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.tick()
            except Refusal as refusal:  # slow or latched: the next tick tries again or keeps the count
                _log.warning("the audit log fell behind: %s", refusal.message)

    def _counts(self) -> dict[str, str]:
        counts = {"unauthenticated": str(self._unauthenticated)}
        self._unauthenticated = 0
        if self._refused_count and self.writer.latched is None:
            counts["audit_unavailable"] = str(self._refused_count)
            self._refused_count = 0
            self._refused.clear()
        return counts

    def _event(self, type_: str, **labels: str) -> Entry:
        return event(type_, tenant=self.tenant, labels=labels)

    def _keep_vkey(self) -> None:
        """The public key beside the log, for people and verifiers. Raises Refusal if another one stands there."""
        path = self._folder / "vkey"
        if not path.exists():
            replace_durably(path, self.vkey.encode() + b"\n")
        elif path.read_text().strip() != self.vkey:
            raise Refusal(
                "audit_unavailable",
                f"The signing key does not belong to {path}: restore keys/audit-signing.key from a backup.",
            )

    # ------------------------------------------------------------ looking

    @property
    def size(self) -> int:
        """Durable records."""
        return self._chain.durable[0]

    @property
    def signed_size(self) -> int:
        """Records that the last checkpoint covers."""
        return self._notary.signed_size

    @property
    def open_intents(self) -> int:
        """Intents in flight."""
        return len(self._chain.open)

    async def query(self, wanted: Filter) -> Page:
        """Records, newest first. The projection is caught up before (not after a latch: it can't be written)."""
        await self._view.fill(self.size)
        return await self._view.query(wanted)

    async def show(self, wanted: str, *, disclose: bool = True) -> Shown:
        """A record by its id, an action's or a case's. The caller records the look. Raises Refusal(not_found)."""
        await self._view.fill(self.size)
        size = self.signed_size
        return await self.writer.read(lambda c: show(c, self.vault, self.tenant, wanted, size, disclose=disclose))

    def arguments_of(self, connection: Connection, intent: Leaf) -> dict[str, Any] | None:
        """The arguments that an intent's record keeps; None where they were not kept, erased or altered."""
        for payload in open_payloads(connection, self.vault, intent):
            if payload.name == "arguments" and payload.text is not None:
                found = msgspec.json.decode(payload.text)
                return found if isinstance(found, dict) else None
        return None

    async def erase(self, record_id: str, *, person: str, reason: str) -> None:
        """Make a record's payloads unreadable for ever and record that, in one transaction.

        Raises Refusal(not_found), Refusal(conflict) if there is nothing to erase.
        """
        entry = event(
            "payload.erased",
            tenant=self.tenant,
            person=person,
            subject={"record": record_id},
            labels={"reason": reason},
        )
        entry.also = partial(erase, leaf_id=record_id)
        await self.append(entry)
        self.writer.forget_deleted()


def _is_empty(writer: Writer) -> bool:
    try:
        return writer.database.read(lambda c: c.execute("SELECT 1 FROM leaf LIMIT 1").fetchone()) is None
    except writer.database.faults as error:
        raise Refusal(
            "audit_unavailable", f"The database can't be read ({error}): restore it from a backup."
        ) from error


def _previous(restored: Restored, gap: Gap | None) -> str:
    if restored.last is None:
        return "none"
    if gap is not None:
        return "latched"
    return "clean" if restored.last.type == "gateway.stop" else "unclean"


def _stopped() -> Refusal:
    return Refusal("stopping", "The audit log is not open: the gateway is starting or stopping.", retry_after_s=5)
