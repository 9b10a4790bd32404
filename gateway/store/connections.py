"""How the database is opened, and which of its errors mean that the disk can't be trusted any more."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

DATABASE_NAME = "gateway.db"
BUSY_TIMEOUT_S = 5.0

# Primary result codes (https://www.sqlite.org/rescode.html) after which nothing more is written: the operating
# system may report a failed fsync once and then succeed without the data being there.
_DISK = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_disk_error(error: BaseException) -> bool:
    """Whether `error` tells of the disk or the file, not of the statement."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in _DISK


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process holds the database for the moment."""
    return _primary_code(error) in _BUSY


def _close_to_others(path: Path) -> None:
    """Mode 600 for the database and what stands beside it; SQLite makes the files beside it in its own mode."""
    path.touch(mode=0o600)
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(name).chmod(0o600)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The connection of the writer: WAL, an fsync per commit, WAL checkpoints left to someone else."""
    _close_to_others(path)
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that can't write; raises sqlite3.OperationalError if there is no database."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA query_only=ON")
    return connection
