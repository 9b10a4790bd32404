"""Which installation a database is: what replicas of it share elsewhere is named by that."""

from __future__ import annotations

import hashlib

import psycopg

from gateway.errors import Refusal
from gateway.store.interface import Connection

_LENGTH = 16

# Any role may ask that: PostgreSQL takes the right away from nobody.
_IDENTITY = (
    "SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database())"
    " FROM pg_control_system()"
)


def installation(connection: Connection) -> str:
    """The id of the installation that this database is of: hexadecimal digits, the same for each of its replicas.

    Raises Refusal(store_unavailable) where the role may not ask for it.
    """
    # PostgreSQL's own identity, and no random id in a table. A row is carried along by a dump that is restored and by a
    # copy of the database: two installations would share counters again, and a database that knows less than Redis
    # would join what Redis knows of another. The server's identifier and the database's number are made anew by both,
    # and stay over a restart and over a failover to a standby, where the replicas go on.
    try:
        row = connection.execute(_IDENTITY).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refusal(
            "store_unavailable",
            "The database's role may not call pg_control_system(), by which replicas name what they share in Redis: "
            "as a superuser, run GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC in that database.",
        ) from error
    server, database = row
    return hashlib.sha256(f"{server}/{database}".encode()).hexdigest()[:_LENGTH]
