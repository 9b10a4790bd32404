"""What is durable of persons and agents at this point of a transaction: for decisions that race with their change.

Memory follows the commit by a moment; inside the writer's transaction the rows are what has happened so far.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gateway.actions import AgentStatus
from gateway.identity.people import Role
from gateway.store.interface import Connection

_strings = msgspec.json.Decoder(list[str]).decode


class StandingNow(NamedTuple):
    """What a person may do on cases."""

    reviewer: bool
    groups: tuple[str, ...]


def standing(connection: Connection, person_id: str) -> StandingNow | None:
    """A person's role and groups; None: there is nobody of this id, or not any more."""
    row = connection.execute(
        "SELECT roles, groups FROM person WHERE id = ? AND removed_ns IS NULL", (person_id,)
    ).fetchone()
    return None if row is None else StandingNow(Role.REVIEWER in _strings(row[0]), tuple(_strings(row[1])))


def is_active(connection: Connection, agent_id: str) -> bool:
    """Whether an agent is registered and not suspended."""
    row = connection.execute("SELECT status FROM agent WHERE id = ? AND source != 'removed'", (agent_id,)).fetchone()
    return row is not None and row[0] == AgentStatus.ACTIVE.value
