"""PostgreSQL, shared by replicas: the connection in the rooms' own SQL, and the database behind the writer.

Owns: how statements are put to PostgreSQL, the fence that keeps an ended replica from writing, the one lock that makes
changes of cases and registers as serial as they are in the embedded file, and finding out whether a commit whose
answer was lost was made. Never does: acknowledge what PostgreSQL has not committed. Fails closed.
"""

from gateway.store.postgres.connection import PostgresConnection, connect
from gateway.store.postgres.database import PostgresDatabase

__all__ = ["PostgresConnection", "PostgresDatabase", "connect"]
