"""Turns entries into leaves inside the writer's thread: number, seal, encode, hash, store.

Holds what the next leaf depends on: the tree's frontier, the writer's sequence number and the intents that have
no result yet. Only the writer's thread touches it, except `durable`, which is replaced whole after a commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.audit.leaf import MAX_LEAF_BYTES, Entry, RefsPart, WriterPart
from gateway.audit.vault import Sealed, Vault
from gateway.clock import Clock, rfc3339
from gateway.errors import Refusal
from gateway.store.connections import is_disk_error
from gateway.store.interface import Connection
from gateway.verify.tree import Frontier, leaf_hash

INTENT = "action.intent"
RESULT = "action.result"

_NANOS = 1_000_000_000
_encode = msgspec.json.Encoder(order="sorted").encode
_encode_reservation = msgspec.json.Encoder().encode


class Chain:
    """The log's growing end. A `store.Group`: its items are the entries of one append each."""

    def __init__(self, vault: Vault, clock: Clock, new_id: Callable[[], str], *, env: str) -> None:
        self._vault = vault
        self._clock = clock
        self._new_id = new_id
        self._env = env
        self._epoch = 0
        self._seq = 0
        self._second = -1
        self._second_text = ""
        self.writer_id = ""
        self.frontier = Frontier()
        self.open: dict[str, str] = {}  # action id -> record id of its intent
        self.durable: tuple[int, tuple[bytes, ...]] = (0, ())  # size and peaks of what is committed

    def restore(self, frontier: Frontier, open_intents: dict[str, str], writer_id: str, epoch: int) -> None:
        """Go on from what start-up found in the database, in a new epoch of the writer."""
        self.frontier = frontier
        self.open = open_intents
        self.writer_id = writer_id
        self._epoch = epoch
        self.committed()

    # ------------------------------------------------------------ store.Group

    def alone(self, _item: Any) -> bool:
        """Nothing else writes the embedded database."""
        return True

    def undone(self) -> None:
        """It is not undone here: where a commit failed the writer has latched, and the next start reads anew."""

    def committed(self) -> None:
        """The batch is durable."""
        self.durable = (self.frontier.size, tuple(self.frontier.peaks))

    def apply(self, connection: Connection, items: list[Any]) -> list[Any]:
        """Write a batch of appends; the outcome of each is None or what refused it."""
        rows = _Rows()
        outcomes = [self._take(connection, entries, rows) for entries in items]
        rows.write(connection)
        return outcomes

    # ------------------------------------------------------------ one append

    def _take(self, connection: Connection, entries: tuple[Entry, ...], rows: _Rows) -> Exception | None:
        """Prepare all entries or none. What fails here is the caller's and touches no other append."""
        first, opened = self._seq, dict[str, str]()
        closed: dict[str, str] = {}
        guarded = any(entry.also is not None for entry in entries)
        if guarded:
            connection.execute("SAVEPOINT append")
        try:
            prepared: list[tuple[Entry, bytes, Sealed | None]] = []
            for entry in entries:
                if entry.also is not None:
                    entry.also(connection)
                prepared.append(self._prepare(entry, opened, closed))
        except Exception as error:
            if is_disk_error(error) or not connection.in_transaction:
                raise
            if guarded:
                connection.execute("ROLLBACK TO append")
                connection.execute("RELEASE append")
            self._seq = first
            self._reopen(opened, closed)
            return _unwritable(error)
        if guarded:
            connection.execute("RELEASE append")
        for entry, body, sealed in prepared:
            leaf = entry.leaf
            hashed = leaf_hash(body)
            rows.leaves.append((self.frontier.size, leaf.id, body, hashed))
            self.frontier.append(hashed)
            if sealed is not None:
                rows.payloads.append((leaf.id, sealed.payload))
                rows.keys.append((leaf.id, self._vault.kek_id, sealed.wrapped_key))
            if leaf.action is None:
                continue
            if leaf.type == INTENT:
                reservation = None if entry.reservation is None else _encode_reservation(entry.reservation)
                rows.opened[leaf.action.id] = (leaf.action.id, leaf.id, reservation)
            elif leaf.type == RESULT and rows.opened.pop(leaf.action.id, None) is None:
                rows.closed.append((leaf.action.id,))
        return None

    def _prepare(
        self, entry: Entry, opened: dict[str, str], closed: dict[str, str]
    ) -> tuple[Entry, bytes, Sealed | None]:
        leaf = entry.leaf
        leaf.id = self._new_id()
        leaf.ts = self._now()
        leaf.env = leaf.env or self._env
        leaf.writer = WriterPart(self.writer_id, self._epoch, self._seq + 1)
        if leaf.action is not None:
            action_id = leaf.action.id
            if leaf.type == INTENT:
                if action_id in self.open:
                    raise Refusal("conflict", f"The action {action_id} has an open intent already.")
                self.open[action_id] = opened[action_id] = leaf.id
            elif leaf.type == RESULT:
                intent_id = self.open.pop(action_id, None)
                if intent_id is None:
                    raise Refusal("conflict", f"The action {action_id} has no open intent: it has ended already.")
                closed[action_id] = intent_id
                if leaf.refs is None:
                    leaf.refs = RefsPart()
                leaf.refs.intent = intent_id
        sealed = self._vault.seal(leaf, entry.payloads) if entry.payloads else None
        body = _encode(leaf)
        if len(body) > MAX_LEAF_BYTES:
            raise Refusal("too_large", f"The record of {len(body)} bytes is over the {MAX_LEAF_BYTES} it may have.")
        self._seq += 1
        return entry, body, sealed

    def _reopen(self, opened: dict[str, str], closed: dict[str, str]) -> None:
        self.open.update(closed)
        for action_id in opened:
            self.open.pop(action_id, None)

    def _now(self) -> str:
        second, rest = divmod(self._clock.now_ns(), _NANOS)
        if second != self._second:
            self._second, self._second_text = second, rfc3339(second * _NANOS)[:20]
        return f"{self._second_text}{rest // 1000:06d}Z"


class _Rows:
    """Rows of a batch, written with one statement per table."""

    def __init__(self) -> None:
        self.leaves: list[tuple[int, str, bytes, bytes]] = []
        self.payloads: list[tuple[str, bytes]] = []
        self.keys: list[tuple[str, str, bytes]] = []
        self.opened: dict[str, tuple[str, str, bytes | None]] = {}
        self.closed: list[tuple[str]] = []

    def write(self, connection: Connection) -> None:
        many = connection.executemany
        if self.leaves:
            many("INSERT INTO leaf (idx, id, body, hash) VALUES (?, ?, ?, ?)", self.leaves)
        if self.payloads:
            many("INSERT INTO payload (leaf_id, sealed) VALUES (?, ?)", self.payloads)
            many("INSERT INTO payload_key (leaf_id, kek, wrapped) VALUES (?, ?, ?)", self.keys)
        if self.closed:
            many("DELETE FROM open_intent WHERE action_id = ?", self.closed)
        if self.opened:
            many(
                "INSERT INTO open_intent (action_id, leaf_id, reservation) VALUES (?, ?, ?)",
                list(self.opened.values()),
            )


def _unwritable(error: Exception) -> Exception:
    """Faults of encoding become a refusal; what `also` raised stays what it is."""
    if isinstance(error, UnicodeEncodeError | msgspec.EncodeError | OverflowError):
        return Refusal("malformed", f"The record has no canonical form ({error}).")
    return error
