"""What the writer asks of a database: one transaction at a time, and what an error of it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from gateway.store.interface import Connection

T = TypeVar("T")


class LostError(Exception):
    """The database could not be reached, and what was being written is certainly not durable."""


class Database(Protocol):
    """One database, as the writer's thread sees it; `read` is called from threads of its own."""

    faults: tuple[type[Exception], ...]
    """What its errors are instances of, LostError among them."""
    readers: int
    """Threads that may read at once."""
    place: str
    """Where it is, for people."""
    away: str | None
    """Why it can't be reached just now; None while it can."""
    latch: Callable[[str], None]
    """Set by the writer: an error from which only a restart recovers."""

    @property
    def connection(self) -> Connection:
        """For the transaction that `begin` began."""
        ...

    def begin(self, *, alone: bool) -> None:
        """Begin a transaction. `alone`: no other transaction that is alone runs meanwhile, in any process.

        Raises one of `faults`, or LostError where it can't be reached.
        """
        ...

    def commit(self) -> None:
        """Make it durable. If it returns, it is; if it raises, it is not and never will be."""
        ...

    def roll_back(self) -> None:
        """Undo what was begun, if anything; raises nothing."""
        ...

    def is_lasting(self, error: Exception, *, began: bool) -> bool:
        """Whether after this error nothing may be written until a restart. `began`: the transaction had begun."""
        ...

    def ends_batch(self, error: Exception) -> bool:
        """Whether an error inside one item's part is one of the whole transaction."""
        ...

    def told(self, error: Exception) -> Exception:
        """How an item's own error is told to who waits for it."""
        ...

    def committed(self, commits: int) -> None:
        """So many commits were made since the start; time for what is done now and then."""
        ...

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on a connection that sees what is committed. Raises what `fn` raises, and LostError."""
        ...

    def forget_deleted(self) -> None:
        """What was deleted shall not stand in a log of the database any longer than need be."""
        ...

    def close(self, *, latched: bool) -> None:
        """Close everything; called when no thread uses it any more."""
        ...


def part(database: Database, fn: Callable[[Connection], Any]) -> Any:
    """Run `fn` inside the transaction so that what it raises undoes only its own part and is its outcome."""
    connection = database.connection
    connection.execute("SAVEPOINT part")
    try:
        value = fn(connection)
    except Exception as error:
        if database.ends_batch(error) or not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO part")
        value = database.told(error)
    connection.execute("RELEASE part")
    return value
