"""Gives records that replicas made durable their places in the one log, and signs its head.

One replica at a time is the sequencer: the one that the log's head names, as long as it is not ended. Every step is one
transaction that holds the head's row, and moves it only from where this replica left it: two can never write two
histories, whatever a clock or a pause does. A checkpoint is signed only of what is committed, and only as an extension
of what was signed before. The head's row carries a code by a key of the replicas: whoever takes the place over holds
all that was placed against it, signed or not.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple

from psycopg.errors import UniqueViolation

from gateway.audit.anchor import Restored, restore_shared
from gateway.audit.ingest import is_of_a_replica
from gateway.audit.leaf import decode_leaf
from gateway.audit.view import project, row_of
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.verify.checkpoints import Checkpoint
from gateway.verify.notes import Signer
from gateway.verify.tree import Frontier, leaf_hash

MOST_AT_ONCE = 2000

_TAKE = "SELECT seq, id, body, mac FROM ingest ORDER BY seq LIMIT ?"
_PLACE = """
INSERT INTO leaf (idx, id, body, hash)
SELECT * FROM unnest(?::bigint[], ?::text[], ?::bytea[], ?::bytea[])
"""
_HEAD = "SELECT writer, size, frontier FROM log_head WHERE tenant = ? FOR UPDATE"
_MOVE = "UPDATE log_head SET writer = ?, size = ?, frontier = ? WHERE tenant = ? AND size = ?"


class Step(NamedTuple):
    """What one step did. `moved`: records placed; None where another replica is the sequencer."""

    moved: int | None
    size: int


class Sequencer:
    """Steps of one replica; each runs inside a transaction that somebody else commits."""

    def __init__(
        self,
        signer: Signer,
        *,
        tenant: str,
        replica: str,
        key: bytes,
        now_ns: Callable[[], int],
        anchored: Callable[[], bytes | None],
    ) -> None:
        """`key` authenticates what waits; `anchored` reads the checkpoint that this replica keeps in its own file."""
        self._signer = signer
        self._tenant = tenant
        self._replica = replica
        self._key = key
        self._now_ns = now_ns
        self._anchored = anchored
        self._head = b""  # as its row stands in the step of now
        self._frontier: Frontier | None = None  # of the log as this replica left it
        self._ahead: Frontier | None = None  # as the step of now will leave it

    def step(self, connection: Connection) -> Step:
        """Place what waits. Raises Refusal(audit_unavailable) where the log is not as it was signed."""
        size = self._lead(connection)
        if size is None:
            return Step(None, 0)
        frontier = self._frontier
        if frontier is None or frontier.size != size:  # new in this place: hold the log against its signatures
            frontier = self._restored(connection).frontier
            if frontier.size != size or not hmac.compare_digest(self._head, self._sealed(frontier)):
                raise Refusal(
                    "audit_unavailable",
                    f"The {frontier.size} records in the table `leaf` are not the {size} that replicas placed:"
                    " somebody else writes to the database; run `gateway audit verify`, keep what it finds as evidence,"
                    " and restore the newest backup or take out what was put in",
                )
        rows = connection.execute(_TAKE, (MOST_AT_ONCE,)).fetchall()
        if not rows:
            self._frontier = frontier
            return Step(0, size)
        ahead = Frontier(frontier.size, tuple(frontier.peaks))
        hashes = []
        for at, record_id, body, mac in rows:
            if not is_of_a_replica(self._key, record_id, body, mac):
                raise _foreign(at)
            hashed = leaf_hash(body)
            hashes.append(hashed)
            ahead.append(hashed)
        places = list(range(size, size + len(rows)))
        try:
            connection.execute(_PLACE, (places, [row[1] for row in rows], [row[2] for row in rows], hashes))
        except UniqueViolation as error:  # the head's row is held, so no replica did that
            raise Refusal(
                "audit_unavailable",
                f"A record among the rows {rows[0][0]} to {rows[-1][0]} of the table `ingest`, or its place, is in the"
                " table `leaf` already: somebody else writes to the database; keep the copy as evidence, delete it, run"
                " `gateway audit verify`, and start the replicas again",
            ) from error
        project(connection, [row_of(at, decode_leaf(row[2])) for at, row in zip(places, rows, strict=True)])
        connection.execute("DELETE FROM ingest WHERE seq = ANY(?::bigint[])", ([row[0] for row in rows],))
        moved = (self._replica, ahead.size, self._sealed(ahead), self._tenant, size)
        if connection.execute(_MOVE, moved).rowcount != 1:
            raise AssertionError("the head moved although its row was held")
        self._ahead = ahead
        return Step(len(rows), ahead.size)

    def placed(self, step: Step) -> None:
        """The step is committed."""
        if step.moved:
            self._frontier = self._ahead

    def lost(self) -> None:
        """A step was not committed, or nobody knows: look at what is there before the next one."""
        self._frontier = None

    def checkpoint(self) -> Checkpoint | None:
        """The head as this replica left it; None where it does not know it."""
        frontier = self._frontier
        if frontier is None or not frontier.size:
            return None
        return Checkpoint(self._signer.verifier.name, frontier.size, frontier.root())

    def sign(self, connection: Connection, checkpoint: Checkpoint) -> bytes | None:
        """Sign a head and keep the signature, if this replica still leads and nobody has signed as much; the note."""
        size = self._lead(connection)
        if size is None or size < checkpoint.size:
            return None
        note = checkpoint.sign(self._signer)
        frontier = self._frontier
        peaks = frontier.to_bytes() if frontier is not None and frontier.size == checkpoint.size else None
        done = connection.execute(
            "INSERT INTO checkpoint (size, root, note, ts_ns, frontier) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (checkpoint.size, checkpoint.root, note, self._now_ns(), peaks),
        )
        return note if done.rowcount == 1 else None

    def _lead(self, connection: Connection) -> int | None:
        """The log's size where this replica is its sequencer, having become it where nobody was."""
        row = connection.execute(_HEAD, (self._tenant,)).fetchone()
        if row is None:
            connection.execute(
                "INSERT INTO log_head (tenant, writer, size, frontier) VALUES (?, ?, 0, ?) ON CONFLICT DO NOTHING",
                (self._tenant, self._replica, self._sealed(Frontier())),
            )
            row = connection.execute(_HEAD, (self._tenant,)).fetchone()
        leader, size, self._head = str(row[0]), int(row[1]), bytes(row[2])
        if leader == self._replica:
            return size
        alive = "SELECT 1 FROM replica WHERE id = ? AND ended_ns IS NULL"
        if connection.execute(alive, (leader,)).fetchone() is not None:
            self._frontier = None
            return None
        connection.execute("UPDATE log_head SET writer = ? WHERE tenant = ?", (self._replica, self._tenant))
        self._frontier = None
        return size

    def _sealed(self, frontier: Frontier) -> bytes:
        """What the head's row says of a log that a replica left so; nobody else can make it."""
        packed = frontier.to_bytes()
        return packed + hmac.digest(self._key, b"head\x00%d\x00" % frontier.size + packed, "sha256")

    def _restored(self, connection: Connection) -> Restored:
        return restore_shared(connection, self._anchored(), self._signer.verifier)


def _foreign(seq: int) -> Refusal:
    return Refusal(
        "audit_unavailable",
        f"Row {seq} of the table `ingest` was not written by a replica, or was changed since: somebody else writes to"
        " the database; keep the row as evidence, delete it, run `gateway audit verify`, and start the replicas again",
    )
