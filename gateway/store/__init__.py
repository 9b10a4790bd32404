"""The database: one SQLite file, or PostgreSQL that replicas share; one writer thread with group commit, migrations.

Owns: the data directory's lock, the connection settings that make a commit survive a power cut, the queue in
front of the one writer, the schema and its migrations. Never does: know what a row means, keep a second writer in a
process, or go on after the disk has failed. Fails closed: the first disk error latches, and every later write is
refused until the process is restarted and start-up has looked at what is really there. PostgreSQL that is away is
waited for: nothing is acknowledged meanwhile, and what already happened is written when it is back.
"""

from gateway.store.interface import Connection, Group, Store
from gateway.store.lock import DirectoryLock
from gateway.store.writer import Writer

__all__ = ["Connection", "DirectoryLock", "Group", "Store", "Writer"]
