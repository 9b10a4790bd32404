"""Turns entries into leaves inside the embedded writer's thread: prepare, hash, store at the next index.

Holds the tree's frontier. Only the writer's thread touches it, except `durable`, which is replaced whole after a
commit. Where replicas share a database, `ingest.py` and `sequencer.py` do this in two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.audit.leaf import Entry
from gateway.audit.preparing import INTENT, RESULT, NotWrittenError, Prepared, Preparing
from gateway.audit.vault import Vault
from gateway.clock import Clock
from gateway.store.interface import Connection
from gateway.verify.tree import Frontier, leaf_hash


class Chain:
    """The log's growing end. A `store.Group`: its items are the entries of one append each."""

    def __init__(self, vault: Vault, clock: Clock, new_id: Callable[[], str], *, env: str) -> None:
        self._preparing = Preparing(vault, clock, new_id, env=env)
        self.frontier = Frontier()
        self.durable: tuple[int, tuple[bytes, ...]] = (0, ())  # size and peaks of what is committed

    @property
    def writer_id(self) -> str:
        return self._preparing.writer_id

    @property
    def open(self) -> dict[str, str]:
        """Action id -> record id of its intent, for those without a result."""
        return self._preparing.open

    def restore(self, frontier: Frontier, open_intents: dict[str, str], writer_id: str, epoch: int) -> None:
        """Go on from what start-up found in the database, in a new epoch of the writer."""
        self.frontier = frontier
        self._preparing.begin(writer_id, epoch, open_intents)
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

    def _take(self, connection: Connection, entries: tuple[Entry, ...], rows: _Rows) -> Exception | None:
        try:
            prepared = self._preparing.together(connection, entries)
        except NotWrittenError as error:
            return error.reason
        for one in prepared:
            hashed = leaf_hash(one.body)
            rows.leaves.append((self.frontier.size, one.entry.leaf.id, one.body, hashed))
            self.frontier.append(hashed)
            rows.beside(one, self._preparing.vault.kek_id)
        return None


class _Rows:
    """Rows of a batch, written with one statement per table."""

    def __init__(self) -> None:
        self.leaves: list[tuple[int, str, bytes, bytes]] = []
        self.payloads: list[tuple[str, bytes]] = []
        self.keys: list[tuple[str, str, bytes]] = []
        self.opened: dict[str, tuple[str, str, bytes | None]] = {}
        self.closed: list[tuple[str]] = []

    def beside(self, one: Prepared, kek_id: str) -> None:
        """What belongs to a record and stands beside it."""
        leaf = one.entry.leaf
        if one.sealed is not None:
            self.payloads.append((leaf.id, one.sealed.payload))
            self.keys.append((leaf.id, kek_id, one.sealed.wrapped_key))
        if leaf.action is None:
            return
        if leaf.type == INTENT:
            self.opened[leaf.action.id] = (leaf.action.id, leaf.id, one.reservation)
        elif leaf.type == RESULT and self.opened.pop(leaf.action.id, None) is None:
            self.closed.append((leaf.action.id,))

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
                "INSERT INTO open_intent (action_id, leaf_id, reservation, replica) VALUES (?, ?, ?, '')",
                list(self.opened.values()),
            )
