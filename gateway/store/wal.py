"""Moves the write-ahead log back into the database file, away from the path of commits."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from gateway.store.connections import is_busy, open_for_writing

_PASSIVE_BYTES = 16 << 20
_RESTART_BYTES = 64 << 20


class WalCheckpointer:
    """One thread with a connection of its own. Told after commits, it copies when enough has gathered.

    A passive checkpoint never waits and never makes a writer wait, but under steady load it never catches up
    either, and the file grows; beyond `_RESTART_BYTES` one that makes the writer wait for the last few pages
    lets the file start again from its beginning.
    """

    def __init__(self, path: Path, on_error: Callable[[str], None]) -> None:
        self._wal = path.with_name(path.name + "-wal")
        self._path = path
        self._on_error = on_error
        self._wake = threading.Event()
        self._stopping = False
        self._truncating = False
        self._copied_bytes = 0
        self._thread = threading.Thread(target=self._run, name="gateway-wal", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """A good number of commits have happened."""
        self._wake.set()

    def truncate(self) -> None:
        """Copy everything and empty the file soon, so that nothing that was deleted lingers in it."""
        self._truncating = True
        self._wake.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        connection = open_for_writing(self._path)
        try:
            while True:
                self._wake.wait()
                self._wake.clear()
                if self._stopping:
                    return
                self._copy(connection)
        except (sqlite3.Error, OSError) as error:
            self._on_error(f"the write-ahead log could not be copied back ({error})")
        finally:
            connection.close()

    def _copy(self, connection: sqlite3.Connection) -> None:
        size = self._wal.stat().st_size
        if size >= _RESTART_BYTES or self._truncating:
            self._truncating = False
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            mode = "TRUNCATE"
        elif abs(size - self._copied_bytes) >= _PASSIVE_BYTES:
            mode = "PASSIVE"
        else:
            return
        try:
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        self._copied_bytes = self._wal.stat().st_size
