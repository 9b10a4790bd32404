"""The audit trail: one record for everything that reached a door, in a log that can't be changed unseen.

Owns: the record's form, the append-only log with its Merkle tree and signed checkpoints, the payload vault, the
query projection, the reaper of intents that a crash left open. Never does: decide anything, write a payload or a
secret into a record, or change or remove a record. Fails closed: what can't be made durable is refused with
`audit_unavailable`, and the gateway then does not act; a log whose stored tree or end is not a consistent extension of
what was signed last is not opened. An edited record before the last checkpoint does not stop a start, which does not
read that far back: the walk after start (`reverify`) tells it, as does `gateway audit verify`.
"""

from gateway.audit.leaf import Entry, Leaf, Payload
from gateway.audit.log import AuditLog

__all__ = ["AuditLog", "Entry", "Leaf", "Payload"]
