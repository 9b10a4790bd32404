"""The last signed checkpoint, in a file of its own beside the database, and what start-up makes of both.

The file is what tells that the database was cut short, rolled back or changed. A log is opened only if its tree
is a consistent extension of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gateway.audit.files import replace_durably
from gateway.audit.leaf import Leaf, decode_leaf
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.verify.checkpoints import Checkpoint, open_checkpoint
from gateway.verify.notes import NoteError, Verifier
from gateway.verify.tree import Frontier, leaf_hash

_CHUNK = 2000


class Anchor:
    """DATA_DIR/audit/checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note: bytes | None = None

    def read(self) -> bytes | None:
        """The signed note, None if there is no file."""
        try:
            self._note = self.path.read_bytes()
        except FileNotFoundError:
            self._note = None
        return self._note

    def replace(self, note: bytes) -> None:
        """Put a newer checkpoint in place, durably. Raises OSError, also if the file is not what we left."""
        known = self._note
        if self.read() != known:
            self._note = known
            raise OSError(f"{self.path} was changed by something else while the gateway ran")
        replace_durably(self.path, note)
        self._note = note


class Restored(NamedTuple):
    """Where the log goes on. `signed_size` in leaves; `last` is None for an empty log."""

    frontier: Frontier
    signed_size: int
    last: Leaf | None
    writer: str | None


def restore(connection: Connection, note: bytes | None, verifier: Verifier, tenant: str) -> Restored:
    """Rebuild the tree from the database and hold it against the last signed checkpoint.

    Reads only what came after the last checkpoint: `gateway audit verify` reads everything. Raises
    Refusal(audit_unavailable) with what was found and what to do.
    """
    size = _size(connection)
    row = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    in_table = None if row is None else _opened(bytes(row[0]), verifier, "in the database")
    in_file = None if note is None else _opened(note, verifier, "in the file audit/checkpoint")
    if in_file is None and in_table is not None:
        raise _refuse(
            f"the database holds a checkpoint of {in_table.size} records, but the file audit/checkpoint is missing",
            "put the file back from a backup",
        )
    signed = max((c for c in (in_file, in_table) if c is not None), key=lambda c: c.size, default=None)
    if signed is not None and size < signed.size:
        raise _refuse(
            f"{signed.size} records were signed, but the database holds only {size}: an older database was put "
            "back, records were deleted, or its write-ahead log is damaged",
            "restore the newest database (with its -wal file)",
        )
    head = connection.execute("SELECT writer, size, frontier FROM log_head WHERE tenant = ?", (tenant,)).fetchone()
    frontier = _known(head, connection, verifier)
    for checkpoint in sorted({c for c in (in_file, in_table) if c is not None}, key=lambda c: c.size):
        if checkpoint.size < frontier.size:
            frontier = Frontier()  # an older file: only the whole log can tell whether it belongs to it
        _extend(connection, frontier, checkpoint.size)
        if frontier.root() != checkpoint.root:
            raise _refuse(
                f"the first {checkpoint.size} records are not those that were signed: a record was changed",
                "run `gateway audit verify` to find which, and restore the database from a backup",
            )
    _extend(connection, frontier, size)
    last = connection.execute("SELECT body FROM leaf WHERE idx = ?", (size - 1,)).fetchone()
    return Restored(
        frontier,
        0 if signed is None else signed.size,
        None if last is None else decode_leaf(last[0]),
        None if head is None else str(head[0]),
    )


def restore_shared(connection: Connection, note: bytes | None, verifier: Verifier) -> Restored:
    """The same for a log that replicas share, where the file may be missing (a new replica) or old (one that was down).

    What the file says must stand among the checkpoints of the database: a database that was put back to an older
    state, or grew another way since, does not have it.
    """
    size = _size(connection)
    row = connection.execute("SELECT size, note, frontier FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    newest = None if row is None else _opened(bytes(row[1]), verifier, "in the database")
    if note is not None:
        _seen_before(connection, _opened(note, verifier, "in the file audit/checkpoint"))
    if newest is not None and size < newest.size:
        raise _refuse(
            f"{newest.size} records were signed, but the database holds only {size}: an older database was put "
            "back, or records were deleted",
            "restore the newest database",
        )
    frontier = Frontier()
    if newest is not None:
        frontier = _vouched(newest, row[2])
        _extend(connection, frontier, newest.size)
        if frontier.root() != newest.root:
            raise _refuse(
                f"the first {newest.size} records are not those that were signed: a record was changed",
                "run `gateway audit verify` to find which, and restore the database from a backup",
            )
    _extend(connection, frontier, size)
    return Restored(frontier, 0 if newest is None else newest.size, None, None)


def _seen_before(connection: Connection, seen: Checkpoint) -> None:
    row = connection.execute("SELECT root FROM checkpoint WHERE size = ?", (seen.size,)).fetchone()
    if row is None or bytes(row[0]) != seen.root:
        raise _refuse(
            f"this replica has seen a signed checkpoint of {seen.size} records that the database does not have: an "
            "older database was put back, or the log was written anew",
            "restore the newest database; delete the file audit/checkpoint only if you know why they differ",
        )


def _vouched(newest: Checkpoint, packed: bytes | None) -> Frontier:
    """The stored frontier of a checkpoint where its signed root vouches for it; else an empty one."""
    try:
        frontier = Frontier.from_bytes(newest.size, bytes(packed or b""))
    except ValueError:
        return Frontier()
    return frontier if frontier.root() == newest.root else Frontier()


def _size(connection: Connection) -> int:
    row = connection.execute("SELECT max(idx) FROM leaf").fetchone()
    return 0 if row[0] is None else int(row[0]) + 1


def _opened(note: bytes, verifier: Verifier, where: str) -> Checkpoint:
    try:
        return open_checkpoint(note, verifier, verifier.name)
    except NoteError as error:
        raise _refuse(
            f"the signed checkpoint {where} does not hold ({error})",
            "put the file back from a backup" if "file" in where else "restore the database from a backup",
        ) from error


def _known(head: tuple[str, int, bytes] | None, connection: Connection, verifier: Verifier) -> Frontier:
    """The stored frontier, if a signed checkpoint of that size vouches for it; else an empty one."""
    if head is None:
        return Frontier()
    row = connection.execute("SELECT note FROM checkpoint WHERE size = ?", (head[1],)).fetchone()
    try:
        frontier = Frontier.from_bytes(head[1], head[2])
        if row is not None and open_checkpoint(bytes(row[0]), verifier).root == frontier.root():
            return frontier
    except (ValueError, TypeError):
        pass  # not usable: the whole log is hashed again instead, and that is what decides
    return Frontier()


def _extend(connection: Connection, frontier: Frontier, size: int) -> None:
    while frontier.size < size:
        rows = connection.execute(
            "SELECT idx, CAST(body AS BLOB), CAST(hash AS BLOB) FROM leaf"
            " WHERE idx >= ? AND idx < ? ORDER BY idx LIMIT ?",
            (frontier.size, size, _CHUNK),
        ).fetchall()
        if not rows:
            raise _refuse(f"record {frontier.size} is missing", "restore the database from a backup")
        for idx, body, stored in rows:
            if idx != frontier.size:
                raise _refuse(f"record {frontier.size} is missing", "restore the database from a backup")
            hashed = leaf_hash(body)
            if hashed != stored:
                raise _refuse(f"record {idx} was changed", "restore the database from a backup")
            frontier.append(hashed)


def _refuse(found: str, mend: str) -> Refusal:
    return Refusal("audit_unavailable", f"The audit log is not as it was signed: {found}; {mend}.")
