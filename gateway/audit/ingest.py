"""Makes entries durable records where replicas share a database; their place in the log comes a moment later.

Each replica numbers its own records; what it acknowledges is committed. `sequencer.py` gives every record its index.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from gateway.audit.leaf import Entry
from gateway.audit.preparing import INTENT, RESULT, NotWrittenError, Preparing, Rides
from gateway.audit.vault import Vault
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.store.postgres.connection import at_once

# One trip for all that a batch writes. The order of `n` is the order in which this replica made its records.
_WRITE = """
WITH records AS (
  INSERT INTO ingest (id, body, mac)
  SELECT id, body, mac FROM unnest(?::text[], ?::bytea[], ?::bytea[]) WITH ORDINALITY AS t (id, body, mac, n) ORDER BY n
), payloads AS (
  INSERT INTO payload (leaf_id, sealed) SELECT * FROM unnest(?::text[], ?::bytea[])
), keys AS (
  INSERT INTO payload_key (leaf_id, kek, wrapped)
  SELECT id, ?, wrapped FROM unnest(?::text[], ?::bytea[]) AS t (id, wrapped)
), closed AS (
  DELETE FROM open_intent WHERE action_id = ANY(?::text[])
), opened AS (
  INSERT INTO open_intent (action_id, leaf_id, reservation, replica)
  SELECT a, l, r, ? FROM unnest(?::text[], ?::text[], ?::bytea[]) AS t (a, l, r)
)
SELECT 1
"""
_CLAIM = """
INSERT INTO open_intent (action_id, leaf_id, reservation, replica, digest)
VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_OPEN_CASE = "SELECT id FROM approval_case WHERE digest = ? AND open = 1"


def mac_of(key: bytes, record_id: str, body: bytes) -> bytes:
    """Shows the sequencer that a replica wrote this (HMAC-SHA-256, RFC 2104), whoever else writes to the database."""
    return hmac.digest(key, record_id.encode() + b"\x00" + body, "sha256")


def is_of_a_replica(key: bytes, record_id: str, body: bytes, mac: bytes) -> bool:
    """Whether a replica wrote this row of the queue, as it is now."""
    return hmac.compare_digest(mac, mac_of(key, record_id, body))


class Ingest:
    """One replica's records. A `store.Group`: its items are the entries of one append each."""

    def __init__(
        self, vault: Vault, clock: Clock, new_id: Callable[[], str], *, env: str, replica: str, key: bytes
    ) -> None:
        """`key` authenticates what waits for its place."""
        self._preparing = Preparing(vault, clock, new_id, env=env)
        self._preparing.begin(replica, 1, {})
        self._replica = replica
        self._key = key
        self._before: tuple[int, dict[str, str]] | None = None  # as it was before what is not yet committed

    @property
    def open(self) -> dict[str, str]:
        """Action id -> record id of its intent, for those of this replica without a result."""
        return self._preparing.open

    def is_of_a_replica(self, record_id: str, body: bytes, mac: bytes) -> bool:
        """See the function of that name."""
        return is_of_a_replica(self._key, record_id, body, mac)

    # ------------------------------------------------------------ store.Group

    def alone(self, item: Any) -> bool:
        """What rides with a record changes what other replicas may be changing too, unless it says otherwise."""
        return any(entry.also is not None and not entry.beside for entry in item)

    def committed(self) -> None:
        """The batch is durable."""
        self._before = None

    def undone(self) -> None:
        """Number on from where the last durable batch ended."""
        if self._before is not None:
            preparing = self._preparing
            preparing.seq, before = self._before
            preparing.open.clear()
            preparing.open.update(before)
            self._before = None

    def apply(self, connection: Connection, items: list[Any]) -> list[Any]:
        """Write a batch of appends; the outcome of each is None or what refused it."""
        if self._before is None:
            self._before = (self._preparing.seq, dict(self._preparing.open))
        batch = _Batch(self._preparing.vault.kek_id, self._replica)
        outcomes = [self._take(connection, entries, batch) for entries in items]
        if batch.beside:
            with at_once(connection):  # one trip for what stands alone
                together = _alike(connection, batch.beside)
            for merge, alike in together.items():  # the spend of all
                merge(alike, connection)
        if again := [action_id for action_id in batch.closed if action_id in batch.opened]:
            # Ended and begun anew in one batch: one statement would see the old row beside the new one.
            connection.execute("DELETE FROM open_intent WHERE action_id = ANY(?::text[])", (again,))
        if batch.ids:
            connection.execute(_WRITE, batch.values())
        return outcomes

    def _take(self, connection: Connection, entries: tuple[Entry, ...], batch: _Batch) -> Exception | None:
        try:
            prepared = self._preparing.together(connection, self._claimed(connection, entries), batch.beside)
        except NotWrittenError as error:
            self._give_back(connection, entries)
            return error.reason
        except _TakenError as error:
            return error.reason
        for one in prepared:
            leaf = one.entry.leaf
            batch.ids.append(leaf.id)
            batch.bodies.append(one.body)
            batch.macs.append(mac_of(self._key, leaf.id, one.body))
            if one.sealed is not None:
                batch.sealed.append((leaf.id, one.sealed.payload, one.sealed.wrapped_key))
            if leaf.action is None:
                continue
            if leaf.type == INTENT and one.entry.claim is None:
                batch.opened[leaf.action.id] = (leaf.action.id, leaf.id, one.reservation)
            elif leaf.type == INTENT:
                connection.execute(
                    "UPDATE open_intent SET leaf_id = ?, reservation = ? WHERE action_id = ?",
                    (leaf.id, one.reservation, leaf.action.id),
                )
            elif leaf.type == RESULT and batch.opened.pop(leaf.action.id, None) is None:
                batch.closed.append(leaf.action.id)
        return None

    # ------------------------------------------------------------ one of identical calls, on whichever replica

    def _claimed(self, connection: Connection, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        for entry in entries:
            action = entry.leaf.action
            if entry.claim is None or action is None:
                continue
            row = (action.id, "", None, self._replica, entry.claim)
            if connection.execute(_CLAIM, row).rowcount != 1:
                holder = connection.execute("SELECT action_id FROM open_intent WHERE digest = ?", (entry.claim,))
                found = holder.fetchone()
                raise _TakenError(
                    Refusal(
                        "conflict",
                        "An identical call is being carried out by another replica; ask again for its result.",
                        retry_after_s=1,
                        detail={"in_flight": "" if found is None else str(found[0])},
                    )
                )
            # Only once the claim stands: whoever ends the intent that was there opens its case in the same transaction.
            case = connection.execute(_OPEN_CASE, (entry.claim,)).fetchone()
            if case is not None:
                self._give_back(connection, (entry,))
                raise _TakenError(
                    Refusal(
                        "conflict",
                        f"An identical call has the case {case[0]}; ask again for what it comes to.",
                        retry_after_s=1,
                        detail={"in_flight": "", "case": str(case[0])},
                    )
                )
        return entries

    @staticmethod
    def _give_back(connection: Connection, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.claim is not None and entry.leaf.action is not None:
                connection.execute("DELETE FROM open_intent WHERE action_id = ?", (entry.leaf.action.id,))


def _alike(connection: Connection, rides: list[Rides]) -> dict[Any, list[Rides]]:
    """Those that can be done together, by what does it; the others are done here."""
    found: dict[Any, list[Rides]] = {}
    for ride in rides:
        together = getattr(ride, "together", None)
        if together is None:
            ride(connection)
        else:
            found.setdefault(together, []).append(ride)
    return found


class _TakenError(Exception):
    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.message)
        self.reason = reason


class _Batch:
    """The columns of what a batch writes."""

    def __init__(self, kek_id: str, replica: str) -> None:
        self.ids: list[str] = []
        self.bodies: list[bytes] = []
        self.macs: list[bytes] = []
        self.sealed: list[tuple[str, bytes, bytes]] = []
        self.beside: list[Rides] = []
        self.closed: list[str] = []
        self.opened: dict[str, tuple[str, str, bytes | None]] = {}
        self._kek_id = kek_id
        self._replica = replica

    def values(self) -> tuple[Any, ...]:
        of = [one[0] for one in self.sealed]
        opened = list(self.opened.values())
        return (
            self.ids,
            self.bodies,
            self.macs,
            of,
            [one[1] for one in self.sealed],
            self._kek_id,
            of,
            [one[2] for one in self.sealed],
            self.closed,
            self._replica,
            [one[0] for one in opened],
            [one[1] for one in opened],
            [one[2] for one in opened],
        )
