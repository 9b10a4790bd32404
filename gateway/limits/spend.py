"""Table `spend` on disk: what was spent per tenant, level and window. The memory's counters restart from it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.limits.interface import SpendRow
from gateway.limits.windows import Windows
from gateway.store.interface import Connection

_ADD = """
INSERT INTO spend (tenant, level, "window", replica, nanousd, tokens) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, level, "window", replica)
DO UPDATE SET nanousd = spend.nanousd + excluded.nanousd, tokens = spend.tokens + excluded.tokens
"""

# The minutes of a level before one of them: nobody asks for them any more.
_FORGET = """
DELETE FROM spend WHERE tenant = ? AND level = ? AND "window" >= 'minute:' AND "window" < ? AND replica = ?
"""

_READ = (
    'SELECT tenant, level, "window", sum(nanousd), sum(tokens) FROM spend WHERE "window" IN (?, ?, ?)'
    ' GROUP BY tenant, level, "window"'
)
_READ_ALL = 'SELECT tenant, level, "window", replica, nanousd, tokens FROM spend WHERE "window" = ?'

ReplicaSpend = tuple[str, str, str, str, int, int]
"""(tenant, level, window, replica, nano-dollars, tokens)."""


def add_spend(rows: Sequence[SpendRow], connection: Connection, *, replica: str = "") -> None:
    """Add to a replica's own rows inside the caller's transaction."""
    connection.executemany(
        _ADD, [(tenant, level, window, replica, usd, tokens) for tenant, level, window, usd, tokens in rows]
    )
    past = [(tenant, level, window, replica) for tenant, level, window, _, _ in rows if window.startswith("minute:")]
    if past:
        connection.executemany(_FORGET, past)


def add_nothing(_connection: Connection) -> None:
    """What a settlement returns that has nothing to book."""


def read_spend(connection: Connection, windows: Windows) -> list[SpendRow]:
    """What was spent in these windows, for `Limits.restore`."""
    return [
        (tenant, level, window, int(usd), int(tokens))
        for tenant, level, window, usd, tokens in connection.execute(
            _READ, (windows.minute, windows.day, windows.month)
        )
    ]


def read_all_spend(connection: Connection, windows: Sequence[str]) -> list[ReplicaSpend]:
    """What each replica has spent in the windows of these names."""
    return [tuple(row) for window in windows for row in connection.execute(_READ_ALL, (window,))]
