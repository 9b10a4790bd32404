"""The embedded database: one SQLite file, one writer thread with group commit, migrations.

Owns: the data directory's lock, the connection settings that make a commit survive a power cut, the queue in
front of the one writer, the schema and its migrations. Never does: know what a row means, keep a second writer,
or go on after the disk has failed. Fails closed: the first disk error latches, and every later write is refused
until the process is restarted and start-up has looked at what is really there.
"""

from gateway.store.lock import DirectoryLock
from gateway.store.writer import Group, Writer

__all__ = ["DirectoryLock", "Group", "Writer"]
