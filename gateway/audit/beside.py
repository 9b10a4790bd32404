"""Holds the tables that are not signed themselves against the records: the query projection, and the registers.

`gateway audit query` reads the projection, and start-up the registers, so who edits those lies without touching a
record. Each row of the projection follows from its record. Of the registers only that is compared which records
say: who was created, revoked, removed and suspended, and the roles and groups of people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from gateway.audit.leaf import decode_leaf
from gateway.audit.view import COLUMNS, row_of
from gateway.audit.wrong import Wrong
from gateway.store.interface import Connection

UNCHECKED = (
    "not compared with the records: secrets of agent keys, names of people, spend of others than agents and users, "
    "times, and comments and stored endings of cases"
)

_VIEW = f"SELECT {COLUMNS} FROM record_view WHERE idx > ? AND idx <= ? ORDER BY idx"  # noqa: S608 - our own words
_STRAY = "SELECT idx FROM record_view WHERE idx NOT IN (SELECT idx FROM leaf) ORDER BY idx LIMIT 10"
_REGISTERS = {
    "agent_key": 'SELECT id, agent_id, "user", expires_ns IS NULL FROM agent_key WHERE revoked_ns IS NULL',
    "person": "SELECT id, roles, groups FROM person WHERE removed_ns IS NULL",
    "agent": "SELECT id, source FROM agent WHERE status != 'suspended'",
}


class _Told(NamedTuple):
    """What the last record of somebody said."""

    type: str
    of: str | None  # a key's agent, a person's roles
    user: str | None = None  # a key's user, a person's groups


class ProjectionCheck:
    """Takes the records in order, in steps, with `step` before and `add` for each. Rows may lag at the end only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: dict[int, tuple[Any, ...]] = {}
        (mark,) = connection.execute("SELECT max(idx) FROM record_view").fetchone()
        self._mark = mark if isinstance(mark, int) else -1
        self.wrong: list[tuple[int, str]] = []

    def step(self, after: int, last: int) -> None:
        """Read the rows of the records `after` (exclusive) to `last`."""
        self._rows = {row[0]: row for row in self._connection.execute(_VIEW, (after, last))}

    def add(self, idx: int, body: bytes) -> None:
        """Compare one record's row. A record that can't be read is for others to tell."""
        row = self._rows.get(idx)
        if row is None:
            if idx <= self._mark:
                self.wrong.append((idx, f"record {idx} is missing from the query view (record_view)"))
            return
        try:
            wanted = row_of(idx, decode_leaf(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if row != wanted:
            self.wrong.append((idx, f"the query view (record_view) shows record {idx} otherwise than it was recorded"))

    def finish(self) -> None:
        """All records were seen: no row may stand for a record that is not there."""
        for (idx,) in self._connection.execute(_STRAY):
            self.wrong.append((idx, f"the query view (record_view) shows a record {idx} that does not exist"))


class RegisterCheck:
    """Takes the records in order. Rows are read before and after, so that a change in between is no finding."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before = self._read()
        self._keys: dict[str, _Told] = {}
        self._replaced: set[str] = set()
        self._people: dict[str, _Told] = {}
        self._agents: dict[str, str] = {}

    def add(self, leaf: dict[str, Any]) -> None:
        """What one record says of keys, people and agents."""
        type_, labels = leaf["type"], leaf["labels"]
        if not isinstance(type_, str) or not type_.startswith(("key.", "person.", "agent.")):
            return
        told = labels.get
        if type_ in ("key.created", "key.rotated"):
            self._keys[told("subject.key")] = _Told(type_, told("subject.agent"), told("subject.user"))
            self._replaced.update(told("subject.replaces", "").split(","))
        elif type_ == "key.revoked":
            self._keys[told("subject.key")] = _Told(type_, None)
        elif type_ in ("person.added", "person.changed", "person.removed"):
            self._people[told("subject.person")] = _Told(type_, told("subject.roles"), told("subject.groups"))
        elif type_ in ("agent.suspended", "agent.resumed"):
            self._agents[told("subject.agent")] = type_

    def wrong(self) -> Iterator[Wrong]:
        """All records were seen."""
        for table, row in sorted(self._before & self._read()):
            key, *rest = json.loads(row)
            fault = getattr(self, f"_{table}")(key, *rest)
            if fault:
                yield Wrong(table, str(key), fault)

    def _agent_key(self, key: Any, agent: Any, user: Any, endless: Any) -> str | None:
        told = self._keys.get(key)
        if told is None:
            return f"the key {key} of the agent {agent} is valid, but no record says that it was created"
        if told.type == "key.revoked":
            return f"the key {key} of the agent {agent} is valid, but was revoked on record"
        if (told.of, told.user) != (agent, user):
            return f"the key {key} was made for another agent or user than it stands for"
        if endless and key in self._replaced:
            return f"the key {key} of the agent {agent} never ends, but was replaced on record"
        return None

    def _person(self, person: Any, roles: Any, groups: Any) -> str | None:
        told = self._people.get(person)
        if told is None or told.type == "person.removed":
            return f"{person} has access, but {'was removed on record' if told else 'no record says that'}"
        if roles != (told.of.split(",") if told.of else []):
            return f"{person} has other roles than recorded"
        if groups != (told.user.split(",") if told.user else []):
            return f"{person} belongs to other groups than recorded"
        return None

    def _agent(self, agent: Any, _source: Any) -> str | None:
        if self._agents.get(agent) == "agent.suspended":
            return f"the agent {agent} is active, but was suspended on record"
        return None

    def _read(self) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for table, statement in _REGISTERS.items():
            for row in self._connection.execute(statement):
                values = list(row)
                if table == "person":
                    values[1:] = map(_decoded, values[1:])
                found.add((table, json.dumps(values, default=repr)))
        return found


def _decoded(text: Any) -> Any:
    """A JSON column, or the text as it stands where somebody made it something else."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return repr(text)
