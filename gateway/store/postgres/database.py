"""The database behind the writer of one replica: fenced transactions, and commits whose outcome is always known.

Each transaction counts up the replica's own row. That row is the fence: once another replica has set `ended_ns` on it,
nothing of this one becomes durable any more. It is the heartbeat too, and the mark that tells, after a connection was
lost while it committed, whether the commit was made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

from gateway.store.database import LostError
from gateway.store.interface import Connection
from gateway.store.moments import one_snapshot
from gateway.store.postgres.connection import LOST, PostgresConnection, connect

T = TypeVar("T")

# One lock for all changes that must not interleave: what the single writer is to the embedded file.
ALONE = 0x6761_7465_0001
NOW = "(extract(epoch from clock_timestamp()) * 1e9)::bigint"
_READERS = 4
AWAY = "PostgreSQL can't be reached"
_RECONNECT_S = 0.1
_GONE: tuple[type[Exception], ...] = (*LOST, LostError)

_log = logging.getLogger("gateway.store")


class PostgresDatabase:
    """See `database.Database`. Made for a replica whose row stands already (`replica_row`)."""

    faults: tuple[type[Exception], ...] = (psycopg.Error, LostError)
    readers = _READERS

    def __init__(self, url: str, replica: str) -> None:
        """Raises LostError where the server can't be reached."""
        self.away: str | None = None
        self.replica = replica
        self.latch: Callable[[str], None] = _log.error
        self._url = url
        self._made = 0  # transactions that this replica made
        self._closing = threading.Event()
        self._mine = threading.local()
        self._opened: list[psycopg.Connection[Any]] = []
        self._opening = threading.Lock()
        self.connection = PostgresConnection(self._connect("writer"))
        info = self.connection.raw.info
        self.place = f"PostgreSQL {info.dbname} at {info.host}:{info.port}"

    # ------------------------------------------------------------ the writer's transactions

    def begin(self, *, alone: bool) -> None:
        """See `Database.begin`. Raises LostError too where another replica has ended this one; then it latches."""
        self._connected()
        lock = f"SELECT pg_advisory_xact_lock({ALONE}); " if alone else ""
        beat = f"UPDATE replica SET seq = {self._made + 1}, beat_ns = {NOW}"  # noqa: S608 - numbers and ids of ours
        # The lock first: whoever ends a replica holds it while it waits for the row.
        statement = f"BEGIN; {lock}{beat} WHERE id = '{self.replica}' AND ended_ns IS NULL"
        try:
            cursor = self.connection.raw.execute(statement.encode(), prepare=False)
            while cursor.nextset():
                pass
        except LOST as error:
            self.roll_back()
            self._lost(error)
            raise LostError(_words(error)) from error
        if cursor.rowcount != 1:
            self.roll_back()
            self.latch(f"another replica has ended this one ({self.replica}), as it had been silent for too long")
            raise LostError("this replica was ended by another")
        self.away = None

    def commit(self) -> None:
        """See `Database.commit`. Where the answer is lost, it waits until the server can say what became of it."""
        try:
            done = self.connection.raw.execute(b"COMMIT", prepare=False)
        except LOST as error:
            self._lost(error)
            if not self._was_made():
                raise LostError(_words(error)) from error
        else:
            if done.statusmessage != "COMMIT":
                raise LostError("the transaction had failed before its end")
        self._made += 1

    def roll_back(self) -> None:
        """See `Database.roll_back`. A connection that can't even do that is closed: the server undoes it then."""
        try:
            if self.connection.in_transaction:
                self.connection.raw.execute(b"ROLLBACK", prepare=False)
        except psycopg.Error:
            self.connection.raw.close()

    def is_lasting(self, error: Exception, *, began: bool) -> bool:
        """See `Database.is_lasting`. Nothing is: what was not committed is not there, and the server says so."""
        return False

    def ends_batch(self, error: Exception) -> bool:
        """See `Database.ends_batch`: time-outs, shutdowns and lost connections; not a row that does not fit."""
        return isinstance(error, _GONE)

    def told(self, error: Exception) -> Exception:
        """See `Database.told`."""
        return error

    def committed(self, commits: int) -> None:
        """See `Database.committed`: the server does its own housekeeping."""

    def forget_deleted(self) -> None:
        """See `Database.forget_deleted`: vacuuming and the write-ahead log's recycling are the server's."""

    # ------------------------------------------------------------ readers

    def read(self, fn: Callable[[Connection], T]) -> T:
        """See `Database.read`. Each thread has a connection of its own; one that was lost is made anew, once."""
        for is_last in (False, True):
            mine: PostgresConnection | None = getattr(self._mine, "connection", None)
            if mine is None or mine.raw.closed:
                mine = self._mine.connection = PostgresConnection(self._connect("reader"))
            try:
                return self._read(mine, fn)
            except LOST as error:
                if not mine.raw.closed:
                    raise LostError(_words(error)) from error
                if is_last:
                    raise LostError(_words(error)) from error
        raise AssertionError("unreachable")

    @staticmethod
    def _read(mine: PostgresConnection, fn: Callable[[Connection], T]) -> T:
        """One snapshot for all that `fn` asks, as the embedded file gives it."""
        mine.raw.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", prepare=False)
        try:
            with one_snapshot():
                return fn(mine)
        finally:
            if not mine.raw.closed:
                mine.raw.execute(b"ROLLBACK", prepare=False)

    # ------------------------------------------------------------ connections

    def close(self, *, latched: bool) -> None:
        """See `Database.close`."""
        self._closing.set()
        for raw in self._opened:
            raw.close()

    def _connect(self, purpose: str) -> psycopg.Connection[Any]:
        try:
            raw = connect(self._url, name=f"gateway {purpose} {self.replica}")
        except psycopg.Error as error:
            raise LostError(_words(error)) from error
        with self._opening:
            self._opened = [one for one in self._opened if not one.closed]
            self._opened.append(raw)
        return raw

    def _connected(self) -> None:
        if not self.connection.raw.closed:
            return
        try:
            self.connection = PostgresConnection(self._connect("writer"))
        except LostError as error:
            self._went(str(error))
            raise

    def _lost(self, error: psycopg.Error) -> None:
        if self.connection.raw.closed:
            self._went(_words(error))

    def _went(self, why: str) -> None:
        """Callers and probes are told that it is away; why, and where it should be, is for the log."""
        if self.away is None:
            _log.warning("PostgreSQL is away: %s", why)
        self.away = AWAY

    def _was_made(self) -> bool:
        """Whether the transaction whose commit got no answer was made. Waits for the server as long as it takes."""
        while True:
            try:
                self._connected()
                # The lock waits for a transaction of ours that the server may still be about to commit.
                mine = "SELECT seq FROM replica WHERE id = ? FOR UPDATE"
                row = self.connection.execute(mine, (self.replica,)).fetchone()
            except _GONE as error:
                if self._closing.is_set():
                    raise LostError("the gateway stopped before the server was back") from error
                time.sleep(_RECONNECT_S)
            else:
                self.away = None
                return row is not None and int(row[0]) == self._made + 1


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
