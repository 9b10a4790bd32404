"""The embedded database: one SQLite file that one process writes, through one connection."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.store import schema
from gateway.store.connections import DATABASE_NAME, is_busy, is_disk_error, open_for_reading, open_for_writing
from gateway.store.database import LostError
from gateway.store.interface import Connection
from gateway.store.lock import DirectoryLock
from gateway.store.wal import WalCheckpointer

T = TypeVar("T")
_POKE_EVERY = 64  # commits between two looks at the size of the write-ahead log

_log = logging.getLogger("gateway.store")


class SqliteDatabase:
    """See `database.Database`. Alone by nature: nobody else has the data directory's lock."""

    faults: tuple[type[Exception], ...] = (sqlite3.Error, LostError)
    readers = 1
    away: str | None = None

    def __init__(self, data_dir: Path) -> None:
        """Lock the data directory and migrate the database if need be.

        Raises Refusal(store_unavailable) if another gateway has the directory or the database is newer than
        the code or unreadable.
        """
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = DirectoryLock(data_dir)
        try:
            self.path = data_dir / DATABASE_NAME
            self.place = str(self.path)
            schema.migrate(self.path)
            self.latch: Callable[[str], None] = _log.error
            self.connection = open_for_writing(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._wal = WalCheckpointer(self.path, lambda reason: self.latch(reason))
        self._reader: sqlite3.Connection | None = None

    def begin(self, *, alone: bool) -> None:
        """See `Database.begin`."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """See `Database.commit`. After an error of it the writer latches: an fsync that failed may have been done."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """See `Database.roll_back`."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error as error:  # latched already; SQLite undoes it when the file is next opened
            _log.warning("the failed commit could not be rolled back: %s", error)

    def is_lasting(self, error: Exception, *, began: bool) -> bool:
        """See `Database.is_lasting`: all but a file that was busy before anything began."""
        return began or not isinstance(error, sqlite3.Error) or not is_busy(error)

    def ends_batch(self, error: Exception) -> bool:
        """See `Database.ends_batch`."""
        return is_disk_error(error)

    def told(self, error: Exception) -> Exception:
        """See `Database.told`: as it is."""
        return error

    def committed(self, commits: int) -> None:
        """See `Database.committed`."""
        if commits % _POKE_EVERY == 0:
            self._wal.poke()

    def read(self, fn: Callable[[Connection], T]) -> T:
        """See `Database.read`."""
        if self._reader is None:
            self._reader = open_for_reading(self.path)
        return fn(self._reader)

    def forget_deleted(self) -> None:
        """See `Database.forget_deleted`: the write-ahead log still holds it."""
        self._wal.truncate()

    def close(self, *, latched: bool) -> None:
        """See `Database.close`. Gives the data directory free."""
        self._wal.stop()
        if self._reader is not None:
            self._reader.close()
        try:
            if not latched:
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:  # the log is whole without it: the next start reads the WAL
            _log.warning("the write-ahead log stays for the next start: %s", error)
        finally:
            self.connection.close()
            self._lock.release()
