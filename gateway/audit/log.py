"""`AuditLog`: start, append, stop. The one object the rest of the gateway knows of this room.

A record is durable when `append` returns. Checkpoints follow off the path: at most a second after a record, and
at stop. When the disk says no the writer latches, and everything is refused until a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.audit import keys as key_files
from gateway.audit import reaper, row_sealing
from gateway.audit.anchor import Anchor, Restored, restore
from gateway.audit.appending import Appending
from gateway.audit.chain import Chain
from gateway.audit.check import verify
from gateway.audit.files import replace_durably
from gateway.audit.gap import Gap, GapFile
from gateway.audit.leaf import Entry
from gateway.audit.notary import Notary
from gateway.audit.recorded import SEALED
from gateway.audit.source import FileSource
from gateway.audit.vault import Vault
from gateway.clock import Clock, Ids, SystemClock
from gateway.errors import Refusal
from gateway.store import Writer
from gateway.store.interface import Connection

HEARTBEAT_S = 60.0
_TICK_S = 0.25
_REMEMBERED = 4096  # refused actions kept apart, so that one action counts once

_log = logging.getLogger("gateway.audit")


class AuditLog(Appending):
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
        chain = Chain(vault, clock, ids.new, env=env)
        super().__init__(writer, keys, vault, chain, tenant=tenant, clock=clock, ids=ids)
        self._folder = data_dir / "audit"
        self._anchor = Anchor(self._folder / "checkpoint")
        self._gap_file = GapFile(self._folder / "gap")
        self._chain = chain
        self._notary = Notary(writer, chain, self._anchor, keys.signer, tenant=tenant, clock=clock)
        self._gap_told = -1
        self._beat_s = clock.monotonic_s()
        self._ticking: asyncio.Task[None] | None = None

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
        keys = key_files.load(data_dir / "keys", origin, create=is_new, random_bytes=random_bytes)
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
        self.recorder.hold_against(restored.frontier)
        await self._seal_rows()
        await self.recorder.catch_up()
        open_intents = await self.writer.read(self._open_intents)
        last = None if restored.last is None else restored.last.writer
        writer_id = f"w-{self._ids.new()[-12:]}" if last is None else last.id
        self._chain.restore(restored.frontier, open_intents, writer_id, 1 if last is None else last.epoch + 1)
        self._notary.signed_size = restored.signed_size
        self._accepting = True
        entries = [self._event("gateway.start", previous=_previous(restored, gap), vkey=self.vkey, **SEALED)]
        if gap is not None and (gap.refused or not gap.final):
            known = "exact" if gap.final else "at least"
            entries.append(self._event("audit.gap", refused=str(gap.refused), count=known, reason=gap.reason))
        entries += await self.writer.read(lambda c: self._endings(c, "gateway_restarted", settle, lost))
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
            entries = await self.writer.write(lambda c: self._endings(c, "gateway_stopped", settle, lost))
            entries.append(self._event("gateway.stop", **self._counts()))
            await self.writer.submit(self._chain, tuple(entries))
            await self._notary.sign()
            await self.recorder.follow(self._clock.now_ns(), saves=True)
        except Refusal as refusal:
            _log.error("the log could not be closed, the next start will say so: %s", refusal.message)
        if self.writer.latched is not None:
            gap = Gap(self.writer.latched, self._refused_count, final=True)
            await asyncio.to_thread(self._gap_file.note, gap)

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
        await self.recorder.follow(self._clock.now_ns())

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.tick()
            except Refusal as refusal:  # slow or latched: the next tick tries again or keeps the count
                _log.warning("the audit log fell behind: %s", refusal.message)

    def _open_intents(self, connection: Connection) -> dict[str, str]:
        """Action ID -> record ID."""
        found = reaper.open_intents(connection, self._open_on_record, self.macs)
        return {one.intent.action.id: one.record_id for one in found if one.intent.action is not None}

    def _endings(
        self, connection: Connection, code: str, settle: reaper.Settle | None, lost: reaper.Lost | None
    ) -> list[Entry]:
        return list(reaper.endings(connection, code, settle, lost, on_record=self._open_on_record, macs=self.macs))

    async def _seal_rows(self) -> None:
        """Rows of a version without codes get theirs, unless the records contradict them."""
        if not await self.writer.read(row_sealing.is_wanted):
            return
        source, names_in = FileSource(self._folder.parent), self.recorder.names_in
        report = await asyncio.to_thread(verify, source, payloads=False, names_in=names_in)
        for chunk in await self.writer.read(partial(row_sealing.plan, report=report)):
            await self.writer.write(partial(row_sealing.seal, macs=self.macs, chunk=chunk))
        await self.writer.write(row_sealing.finish)

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

    async def caught_up(self) -> None:
        """The projection has all that is durable (not after a latch: it can't be written)."""
        await self._view.fill(self.size)


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
