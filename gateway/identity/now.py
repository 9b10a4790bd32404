"""What is durable of persons and agents at this point of a transaction: for decisions that race with their change.

Memory follows the commit by a moment; inside the writer's transaction the rows are what has happened so far.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gateway.actions import AgentStatus
from gateway.identity.origin import Given, decode_given
from gateway.identity.people import Role
from gateway.store.interface import Connection
from gateway.store.macs import COVERED, RowMacs

_strings = msgspec.json.Decoder(list[str]).decode


class StandingNow(NamedTuple):
    """What a person may do on cases."""

    reviewer: bool
    groups: tuple[str, ...]
    given: Given


class Now:
    """Looks at rows inside a transaction; a row that no gateway wrote is not there."""

    def __init__(self, macs: RowMacs) -> None:
        self._macs = macs

    def standing(self, connection: Connection, person_id: str) -> StandingNow | None:
        """A person's role and groups; None: there is nobody of this ID, or not any more."""
        found = self._row(connection, "person", person_id)
        if found is None or found["removed_ns"] is not None:
            return None
        return StandingNow(
            Role.REVIEWER in _strings(found["roles"]), tuple(_strings(found["groups"])), decode_given(found["given"])
        )

    def is_active(self, connection: Connection, agent_id: str) -> bool:
        """Whether an agent is registered and not suspended."""
        found = self._row(connection, "agent", agent_id)
        return found is not None and found["source"] != "removed" and found["status"] == AgentStatus.ACTIVE.value

    def _row(self, connection: Connection, table: str, key: str) -> dict[str, Any] | None:
        rows = self._macs.read(connection, table, "WHERE id = ?", (key,))
        return dict(zip(COVERED[table].columns, rows[0], strict=True)) if rows else None
