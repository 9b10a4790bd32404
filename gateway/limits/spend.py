"""Table `spend` on disk: what was spent per tenant, level and window. The memory's counters restart from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.limits.interface import SpendRow
from gateway.limits.windows import Windows
from gateway.store.interface import Connection
from gateway.store.macs import COVERED, RowMacs
from gateway.store.moments import read_began

_COLUMNS = COVERED["spend"].listed
_WRITE = f"""
INSERT INTO spend ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, level, "window", replica)
DO UPDATE SET nanousd = excluded.nanousd, tokens = excluded.tokens, mac = excluded.mac
"""  # noqa: S608 - names of ours
_FIND = f'SELECT {_COLUMNS} FROM spend WHERE (tenant, level, "window", replica) IN (VALUES '  # noqa: S608

# The minutes of a level before one of them: nobody asks for them any more.
_FORGET = """
DELETE FROM spend WHERE tenant = ? AND level = ? AND "window" >= 'minute:' AND "window" < ? AND replica = ?
"""

_KEPT_ALWAYS = ("agent:", "user:")  # their days and months are counted whether or not they are limited
_FOUND_AT_ONCE = 500
_REMEMBERED = 10_000

ReplicaSpend = tuple[str, str, str, str, int, int]
"""(tenant, level, window, replica, nano-dollars, tokens)."""
_Key = tuple[str, str, str, str]


class SpendTable:
    """The table, whose rows count only with the code of a gateway.

    A row is a total, and its code covers the total: so the row is read before something is added. Rows that this
    process wrote itself are recognised by comparison, which spares the check of their code.
    """

    def __init__(self, macs: RowMacs) -> None:
        self._macs = macs
        self._written: dict[_Key, tuple[Any, ...]] = {}

    def add(self, bookings: Sequence[Booking], connection: Connection) -> None:
        """Book several at once, inside the caller's transaction."""
        more: dict[_Key, list[int]] = {}
        for booking in bookings:
            for tenant, level, window, nanousd, tokens in booking.rows:
                total = more.setdefault((tenant, level, window, booking.replica), [0, 0])
                total[0] += nanousd
                total[1] += tokens
        keys = list(more)
        for at in range(0, len(keys), _FOUND_AT_ONCE):
            began = read_began()
            for row in self._find(connection, keys[at : at + _FOUND_AT_ONCE]):
                key, mine = row[:4], tuple(row)
                if mine == self._written.get(key) or self._macs.believes("spend", row, began):
                    more[key][0] += row[4]
                    more[key][1] += row[5]
        rows = [(*key, *total, self._macs.of("spend", (*key, *total))) for key, total in more.items()]
        connection.executemany(_WRITE, rows)
        if len(self._written) > _REMEMBERED:
            self._written.clear()
        self._written.update(zip(more, rows, strict=True))
        past = [(tenant, level, window, replica) for tenant, level, window, replica in keys if _is_minute(window)]
        if past:
            connection.executemany(_FORGET, past)

    @staticmethod
    def _find(connection: Connection, keys: Sequence[_Key]) -> list[Any]:
        marks = ", ".join(["(?, ?, ?, ?)"] * len(keys))
        return connection.execute(f"{_FIND}{marks})", [part for key in keys for part in key]).fetchall()

    def read(
        self, connection: Connection, windows: Windows, recorded: Mapping[_Key, tuple[int, int]] | None = None
    ) -> list[SpendRow]:
        """What was spent in these windows, by whichever replica, for `Limits.restore`; see `at_least`."""
        totals: dict[tuple[str, str, str], list[int]] = {}
        rows = self.read_all(connection, (windows.minute, windows.day, windows.month))
        if recorded is not None:
            rows = self.at_least(connection, rows, recorded)
        for tenant, level, window, _, nanousd, tokens in rows:
            total = totals.setdefault((tenant, level, window), [0, 0])
            total[0] += nanousd
            total[1] += tokens
        return [(*key, nanousd, tokens) for key, (nanousd, tokens) in totals.items()]

    def read_all(self, connection: Connection, windows: Sequence[str]) -> list[ReplicaSpend]:
        """What each replica has spent in the windows of these names."""
        return [
            (tenant, level, window, replica, nanousd, tokens)
            for name in windows
            for tenant, level, window, replica, nanousd, tokens in self._macs.read(
                connection, "spend", 'WHERE "window" = ?', (name,)
            )
        ]

    def at_least(
        self, connection: Connection, rows: Sequence[ReplicaSpend], recorded: Mapping[_Key, tuple[int, int]]
    ) -> list[ReplicaSpend]:
        """`rows`, and where the log's costs come to more than a row says, those: the higher spend counts.

        A row of an agent or a user that says less is reported; of the other levels no record says which windows were
        counted, so a budget that was added in the middle of its window counts what was spent there before.
        """
        merged = {row[:4]: (row[4], row[5]) for row in rows}
        turned = self._turned(connection)
        for key, said in recorded.items():
            tenant, level, window, _ = key
            stands = merged.get(key, (0, 0))
            if said[0] <= stands[0] and said[1] <= stands[1]:
                continue
            if (tenant, level, _month(window)) in turned:
                continue
            merged[key] = (max(said[0], stands[0]), max(said[1], stands[1]))
            if level.startswith(_KEPT_ALWAYS):
                told = f"{stands[0]} nano-USD and {stands[1]} tokens, and on record are {said[0]} and {said[1]}"
                self._macs.report("spend", "/".join(key), f"says that less was spent than is on record: {told}")
        return [(*key, *total) for key, total in merged.items()]

    def _turned(self, connection: Connection) -> set[tuple[str, str, str]]:
        """Months in which a level was counted in several time zones: windows were begun in their middle."""
        zones: dict[tuple[str, str, str], set[str]] = {}
        months = self._macs.read(connection, "spend", "WHERE \"window\" >= 'month:'")
        for tenant, level, window, *_ in months:
            zones.setdefault((tenant, level, _month(window)), set()).add(window)
        return {key for key, found in zones.items() if len(found) > 1}


class Booking:
    """What is to be added to the table: call it in a transaction, or several at once with `together`."""

    __slots__ = ("replica", "rows", "table")

    def __init__(self, table: SpendTable, rows: Sequence[SpendRow], replica: str = "") -> None:
        self.table = table
        self.rows = rows
        self.replica = replica

    def __call__(self, connection: Connection) -> None:
        """Book this one."""
        self.table.add((self,), connection)

    @staticmethod
    def together(bookings: Sequence[Booking], connection: Connection) -> None:
        """Book all of them with one look at the table."""
        bookings[0].table.add(bookings, connection)


LOCAL = SpendTable(RowMacs(os.urandom(32)))
"""Before the log's keys were read: rows that this process writes count in this process and nowhere else."""


def add_spend(
    rows: Sequence[SpendRow], connection: Connection, *, replica: str = "", table: SpendTable = LOCAL
) -> None:
    """Add to a replica's own rows inside the caller's transaction."""
    table.add((Booking(table, rows, replica),), connection)


def read_spend(connection: Connection, windows: Windows, table: SpendTable = LOCAL) -> list[SpendRow]:
    """See `SpendTable.read`."""
    return table.read(connection, windows)


def read_all_spend(connection: Connection, windows: Sequence[str], table: SpendTable = LOCAL) -> list[ReplicaSpend]:
    """See `SpendTable.read_all`."""
    return table.read_all(connection, windows)


def add_nothing(_connection: Connection) -> None:
    """What a settlement returns that has nothing to book."""


def _month(window: str) -> str:
    """The month that a day or a month lies in, such as 2026-11."""
    return window.partition(":")[2][:7]


def _is_minute(window: str) -> bool:
    return window.startswith("minute:")
