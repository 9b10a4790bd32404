"""Rows of table `replica`: who serves, who is silent, who was ended. Only statements; when they run is not said here.

Times are the database's, so that replicas' clocks need not agree.
"""

# ruff: noqa: S608 - what is put into statements is ours

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gateway.store.interface import Connection
from gateway.store.postgres.database import NOW

_decode = msgspec.json.Decoder(dict[str, str]).decode


class Replica(NamedTuple):
    """A process that serves or served. `silent_s`: since it last made anything durable."""

    id: str
    name: str
    url: str
    version: str
    started_ns: int
    silent_s: float
    ended: bool
    told: dict[str, str]


def register(connection: Connection, replica: str, *, name: str, version: str) -> None:
    """A new replica begins."""
    connection.execute(
        "INSERT INTO replica (id, name, url, version, started_ns, beat_ns, seq, released, told)"
        f" VALUES (?, ?, '', ?, {NOW}, {NOW}, 0, 0, '{{}}')",
        (replica, name, version),
    )


def tell(connection: Connection, replica: str, *, url: str, told: dict[str, str]) -> None:
    """What others may know of a replica: where it is, the revisions it runs, what is degraded."""
    text = msgspec.json.encode(told, order="sorted").decode()
    connection.execute("UPDATE replica SET url = ?, told = ? WHERE id = ?", (url, text, replica))


def known(connection: Connection) -> list[Replica]:
    """Those that run, and those that ended within the last hour."""
    rows = connection.execute(
        f"SELECT id, name, url, version, started_ns, ({NOW} - beat_ns) / 1e9, ended_ns IS NOT NULL, told FROM replica"
        f" WHERE ended_ns IS NULL OR ended_ns > {NOW} - 3600 * 1000000000::bigint ORDER BY started_ns"
    )
    return [
        Replica(
            id_, name, url, version, started, float(silent), bool(ended), msgspec.json.decode(told, type=dict[str, str])
        )
        for id_, name, url, version, started, silent, ended, told in rows
    ]


def holding(connection: Connection) -> set[str]:
    """Ids of replicas that may hold something of limits: those that nobody has ended, and those that were, as long as
    what they left open is not booked."""
    return {str(row[0]) for row in connection.execute("SELECT id FROM replica WHERE ended_ns IS NULL OR released = 0")}


def silent(connection: Connection, after_s: float) -> list[str]:
    """Ids of replicas that have made nothing durable for so long."""
    rows = connection.execute(
        f"SELECT id FROM replica WHERE ended_ns IS NULL AND beat_ns < {NOW} - ?::bigint",
        (int(after_s * 1e9),),
    )
    return [str(row[0]) for row in rows]


def end(connection: Connection, replica: str, after_s: float | None = None) -> bool:
    """Fence a replica: from the commit on it can write nothing. False where somebody else did, or it is not silent.

    Run it alone (`Database.begin`): the replica's own transactions hold its row.
    """
    condition = "" if after_s is None else f" AND beat_ns < {NOW} - {int(after_s * 1e9)}"
    done = connection.execute(
        f"UPDATE replica SET ended_ns = {NOW} WHERE id = ? AND ended_ns IS NULL{condition}",
        (replica,),
    )
    return done.rowcount == 1


def unreleased(connection: Connection) -> list[tuple[str, int]]:
    """Replicas that were ended and may still hold something, each with how many of its intents are open."""
    return [
        (str(id_), int(count))
        for id_, count in connection.execute(
            "SELECT replica.id, count(open_intent.action_id) FROM replica"
            " LEFT JOIN open_intent ON open_intent.replica = replica.id"
            " WHERE ended_ns IS NOT NULL AND released = 0 GROUP BY replica.id"
        )
    ]


def released(connection: Connection, replica: str) -> None:
    """Nothing is held for it any more."""
    connection.execute("UPDATE replica SET released = 1 WHERE id = ?", (replica,))


def bump(connection: Connection, topic: str, seen: int) -> bool:
    """Something that replicas hold in memory is other from here on. False: it was so already, since `seen`."""
    if seen:
        changed = "UPDATE changed SET version = version + 1 WHERE topic = ? AND version = ?"
        return connection.execute(changed, (topic, seen)).rowcount == 1
    first = "INSERT INTO changed (topic, version) VALUES (?, 1) ON CONFLICT DO NOTHING"
    return connection.execute(first, (topic,)).rowcount == 1


def versions(connection: Connection) -> dict[str, int]:
    """How often each topic was changed."""
    return {str(topic): int(version) for topic, version in connection.execute("SELECT topic, version FROM changed")}
