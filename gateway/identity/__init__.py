"""Who is asking: agents by their key, people by their sign-in, and the session a request belongs to.

Owns the registers of agents, keys, people, sign-in links and console sessions: kept in the store, answered from
memory. Each change is one transaction with its audit record, and reaches memory only after it is durable.
Never keeps a secret (only its SHA-256), never takes an agent's word for who it or its user is, and never
decides what an agent may do. Fails closed: an unknown, revoked, expired or ambiguous credential is refused.
"""

from gateway.identity.identify import Identity
from gateway.identity.people import People, Person, Role
from gateway.identity.registry import Registry

__all__ = ["Identity", "People", "Person", "Registry", "Role"]
