"""What the rest of the gateway may ask of a store: the embedded one and PostgreSQL both are this."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Cursor(Protocol):
    """What a statement gave; rows are tuples."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A database connection inside somebody else's transaction.

    Statements are written once, in what SQLite and PostgreSQL both understand, with `?` for values. A
    `sqlite3.Connection` is one as it is; `store.postgres.connection` makes one of PostgreSQL's.
    """

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor: ...
    def executemany(self, sql: str, parameters: Any, /) -> Cursor: ...


class Group(Protocol):
    """Takes all items of a kind in a batch at once; its methods run in the writer's thread.

    An item's own failure is its outcome and must leave no row behind; an error of the database must be raised.
    """

    def apply(self, connection: Connection, items: list[Any]) -> list[Any]:
        """Write the items inside the open transaction; one outcome each, an exception instance for a failure."""
        ...

    def alone(self, item: Any) -> bool:
        """Whether no other such item may be written meanwhile, by whichever process."""
        ...

    def committed(self) -> None:
        """What was applied is now durable."""
        ...

    def undone(self) -> None:
        """What was applied since the last commit is not durable and never will be; the items may come again."""
        ...


class Store(Protocol):
    """Durable writes of one gateway. One event loop uses it."""

    @property
    def latched(self) -> str | None:
        """Why nothing more is written until a restart; None while all is well."""
        ...

    @property
    def away(self) -> str | None:
        """Why the database can't be reached just now; it comes back by itself. None while it can."""
        ...

    @property
    def queued(self) -> int:
        """Items that wait for the writer."""
        ...

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in the writer's transaction; durable when this returns.

        `fn` runs in the writer's thread, must not commit, and should take well under a millisecond. What it
        raises comes back here and undoes only its own part. Raises Refusal(audit_unavailable) when latched,
        when the queue is full, or when the commit takes too long.
        """
        ...

    def write_soon(self, fn: Callable[[Connection], object]) -> None:
        """Run `fn` with the next commit, at most about 20 ms away. Raises Refusal(audit_unavailable)."""
        ...

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on a read-only connection in another thread; sees what is committed.

        Raises Refusal(store_unavailable) where the database can't be reached.
        """
        ...

    def submit(
        self, group: Group | None, item: Any, late: Callable[[], None] | None = None, *, certain: bool = False
    ) -> asyncio.Future[Any]:
        """Queue `item` for `group`; the future ends when it is durable or refused.

        `late` is called on the event loop if the item became durable after the future had been given up. `certain` is
        for what already happened: it is waited for as long as the disk takes, and written whether or not anybody
        still waits.
        """
        ...

    def submit_soon(self, group: Group | None, item: Any, *, certain: bool = False) -> None:
        """Queue `item` for `group` without waiting for it.

        `certain` is for what already happened, so that a flood of the rest can't make it refused; if even such
        items can't be queued any more, the writer latches, and the next start finds what they would have ended.
        Raises Refusal(audit_unavailable).
        """
        ...

    def latch(self, reason: str) -> None:
        """Refuse every write from now on, until a restart. Any thread may call it; the first reason stays."""
        ...

    def forget_deleted(self) -> None:
        """What was deleted shall not stand in a log of the database any longer than need be."""
        ...

    async def close(self) -> None:
        """Commit what is queued, end the threads, give everything free."""
        ...
