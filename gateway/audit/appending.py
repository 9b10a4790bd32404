"""What every log of ours can do, however its records get their places: append, count refusals, show, erase."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from gateway.actions import Status
from gateway.audit import reaper
from gateway.audit.comparing import compare, compare_registers
from gateway.audit.digests import Digester
from gateway.audit.keys import Keys
from gateway.audit.leaf import CostPart, Entry, Leaf
from gateway.audit.preparing import INTENT, RESULT
from gateway.audit.recorded import Recorded, Waiting
from gateway.audit.recorder import Recorder
from gateway.audit.records import event
from gateway.audit.show import Shown, erase, open_payloads, show
from gateway.audit.vault import Vault
from gateway.audit.view import Filter, Page, Refused, View
from gateway.clock import Clock, Ids
from gateway.errors import Refusal
from gateway.store.interface import Connection, Group, Store
from gateway.store.macs import RowMacs

_TRIES = 100
_PAUSE_S = 0.02
_REMEMBERED = 4096  # refused actions kept apart, so that one action counts once

_log = logging.getLogger("gateway.audit")


class Appending:
    """Records of one tenant, durable when `append` returns. `group` makes them rows."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        vault: Vault,
        group: Group,
        *,
        tenant: str,
        clock: Clock,
        ids: Ids,
        shared: bool = False,
    ) -> None:
        """`shared`: the log is that of several replicas."""
        self.tenant = tenant
        self.writer = store
        self.macs = RowMacs(keys.rows)
        """What tells rows that a gateway with these keys wrote from others."""
        self.recorder = Recorder(store, self.macs, tenant, shared=shared)
        """What the records say that rows must not contradict."""
        self.vkey = keys.signer.verifier.vkey
        self.vault = vault
        self._group = group
        self._verifier = keys.signer.verifier
        self._digester = Digester(keys.digest)
        self._clock = clock
        self._ids = ids
        self._view = View(store, tenant)
        self._unauthenticated = 0
        self._refused: dict[str, None] = {}
        self._refused_count = 0
        self._accepting = False

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
            await self.writer.submit(self._group, entries, partial(self._given_up, entries), certain=certain)
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
            self.writer.submit_soon(self._group, entries, certain=certain)
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

    # ------------------------------------------------------------ looking

    @property
    def size(self) -> int:
        """Durable records that have their place in the log."""
        raise NotImplementedError

    @property
    def signed_size(self) -> int:
        """Records that the last checkpoint covers."""
        raise NotImplementedError

    @property
    def unsigned(self) -> int:
        """Durable records that the last checkpoint does not cover."""
        return max(0, self.size - self.signed_size)

    @property
    def open_intents(self) -> int:
        """Intents in flight."""
        raise NotImplementedError

    async def compare_rows(self) -> Recorded:
        """Hold rows against the records; what the records say. Rows that they contradict are not believed any more."""
        return await self._compared(compare)

    async def compare_registers(self) -> None:
        """Hold agents, keys, people and sessions against the records, as where another replica changed some."""
        await self._compared(compare_registers)

    async def _compared(self, look: Callable[[Recorded, Connection, RowMacs], None]) -> Recorded:
        def compared(connection: Connection) -> Recorded | None:
            waiting = self._unplaced(connection)
            recorded = self.recorder.with_waiting(connection, waiting)
            if recorded is not None:
                look(recorded, connection, self.macs)
            return recorded

        await self.recorder.catch_up()
        for _ in range(_TRIES):
            found = await self.writer.read(compared)
            if found is not None:
                return found
            await asyncio.sleep(_PAUSE_S)  # a later snapshot has what was read of the log meanwhile
        raise Refusal(
            "store_unavailable",
            "The rows of the database can't be compared with the audit log, which has fewer records than before; run "
            "`gateway audit verify`.",
        )

    def _open_on_record(self, connection: Connection) -> dict[str, str]:
        """See `reaper.OnRecord`."""
        waiting = self._unplaced(connection)
        return self.recorder.open_intents(connection, waiting)

    def case_on_record(self, connection: Connection, case_id: str) -> tuple[int, int, int] | None:
        """The attempts, votes and findings of an open case as the log has them, inside a transaction; None where it has
        ended."""
        said = self.recorder.case(connection, case_id, self._unplaced(connection, case_id))
        return None if said is None else (said.attempts, said.votes, said.findings)

    def deleted_cases(self, connection: Connection, digest: str | None = None) -> dict[str, str]:
        """Cases that are open on record and whose rows are gone, perhaps only those of one identity: ID -> digest.

        Inside a transaction that no change of a case can run beside.
        """
        waiting = self._unplaced(connection, digest or "")
        said = self.recorder.open_cases(connection, waiting, digest)
        row = "SELECT 1 FROM approval_case WHERE id = ?"
        return {case: whose for case, whose in said.items() if connection.execute(row, (case,)).fetchone() is None}

    def _unplaced(self, connection: Connection, about: str = "") -> list[Waiting]:
        """Durable records that have no place in the log yet; `about`: a text that they contain."""
        return []

    async def stop(self, settle: reaper.Settle | None = None, lost: reaper.Lost | None = None) -> None:
        """End what is still open as `unknown`, write `gateway.stop`, sign. Stopping twice does no harm."""
        raise NotImplementedError

    async def caught_up(self) -> None:
        """Until what is durable now can be queried."""
        raise NotImplementedError

    async def query(self, wanted: Filter) -> Page:
        """Records, newest first. The projection is caught up before (not after a latch: it can't be written)."""
        await self.caught_up()
        return await self._view.query(wanted)

    async def refused(self, since_ns: int) -> list[Refused]:
        """How many actions of each agent were refused since then, by code, most first."""
        await self.caught_up()
        return await self._view.refused(since_ns)

    async def show(self, wanted: str, *, disclose: bool = True) -> Shown:
        """A record by its id, an action's or a case's. The caller records the look. Raises Refusal(not_found)."""
        await self.caught_up()
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


def _stopped() -> Refusal:
    return Refusal("stopping", "The audit log is not open: the gateway is starting or stopping.", retry_after_s=5)
