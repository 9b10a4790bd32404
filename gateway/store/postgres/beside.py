"""Transactions of a replica apart from its writer's: on a connection of their own, in a thread that may wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from gateway.store.database import LostError
from gateway.store.interface import Connection
from gateway.store.postgres.connection import LOST, PostgresConnection, connect

T = TypeVar("T")


class Beside:
    """One connection for one purpose. Threads take turns: one whose caller has left goes on to its end."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: PostgresConnection | None = None
        self._turn = threading.Lock()

    def run(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a transaction and commit it.

        Raises LostError where the server was not there, or nobody knows whether it was committed, and what `fn`
        raises; then it was not.
        """
        with self._turn:
            return self._run(fn)

    def _run(self, fn: Callable[[Connection], T]) -> T:
        try:
            if self._connection is None or self._connection.raw.closed:
                self._connection = PostgresConnection(connect(self._url, name=self._name))
            raw = self._connection.raw
            raw.execute(b"BEGIN", prepare=False)
            try:
                found = fn(self._connection)
                if raw.execute(b"COMMIT", prepare=False).statusmessage != "COMMIT":
                    raise LostError("the transaction had failed before its end")
            except BaseException:
                if not raw.closed:
                    raw.execute(b"ROLLBACK", prepare=False)
                raise
            return found
        except LOST as error:
            raise LostError(" ".join(str(error).split())[:300]) from error

    def close(self) -> None:
        """Close the connection, if there is one."""
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.raw.close()
