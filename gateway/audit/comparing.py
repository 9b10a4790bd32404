"""Compares rows with what the log says, at start: a row that contradicts its records is not believed.

The rows that are read here have valid codes; what is found is an older state that somebody put back, or a row that is
gone. What each says goes to `RowMacs.distrust`, so that whoever reads the row later does not get it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from gateway.audit.recorded import CaseSaid, Recorded
from gateway.store.interface import Connection
from gateway.store.macs import COVERED, RowMacs, key_of

_OPEN = "WHERE open = 1"
_CUT = "…"  # how a long label of a record ends
_LINK_NS = 15 * 60 * 10**9  # how long a sign-in link is valid
_COMPARED_OF_AGENTS = ("tenant", "env", "version", "team", "use_case", "tier")
_JSON_OF_AGENTS = ("owners", "labels")


def compare(recorded: Recorded, db: Connection, macs: RowMacs) -> None:
    """Distrust every row that is older than the log says. `db` sees the same moment as `recorded`."""
    compare_registers(recorded, db, macs)
    _cases(recorded, db, macs)


def compare_registers(recorded: Recorded, db: Connection, macs: RowMacs) -> None:
    """The same for agents, keys, people, sessions and sign-in links."""
    for table, look, where in (
        ("agent_key", _agent_key, "WHERE revoked_ns IS NULL"),
        ("person", _person, ""),
        ("agent", _agent, ""),
        ("console_session", _session, "WHERE revoked_ns IS NULL"),
        ("sign_in", _link, "WHERE used_ns IS NULL"),
    ):
        for row in macs.read(db, table, where):
            reason = look(recorded, dict(zip(COVERED[table].columns, row, strict=True)))
            if reason is not None:
                macs.distrust(table, row, reason)


def suspended(recorded: Recorded) -> frozenset[str]:
    """Agents that the log says are suspended."""
    return frozenset(agent for agent, said in recorded.state.agents.items() if said.is_suspended)


def _agent_key(recorded: Recorded, row: dict[str, Any]) -> str | None:
    if row["revoked_ns"] is not None:
        return None
    until_ns, ends_ns = recorded.state.keys.get(row["id"]), row["expires_ns"]
    if until_ns == 0:
        return "is valid, and was revoked on record"
    if until_ns is not None and (ends_ns is None or ends_ns > until_ns > 0):
        return "works for longer than its replacement left it on record"
    return None


def _person(recorded: Recorded, row: dict[str, Any]) -> str | None:
    if row["removed_ns"] is not None:
        return None
    said = recorded.state.people.get(row["id"])
    if said is None or not said.is_there:
        return "has access, and was removed on record" if said else "has access, and no record says so"
    for what, stands in (("roles", said.roles), ("groups", said.groups)):
        if not stands.endswith(_CUT) and ",".join(msgspec.json.decode(row[what])) != stands:
            return f"has other {what} than on record"
    if _digest_of_given(row["given"]) != said.given:
        return "was given what it may do by others, or at another time, than on record"
    return None


def _agent(recorded: Recorded, row: dict[str, Any]) -> str | None:
    said = recorded.state.agents.get(row["id"])
    if said is None:
        return "is registered, and no record says so"
    if said.is_suspended and row["status"] != "suspended":
        return "is active, and was suspended on record"
    if said.definition.endswith(_CUT) or not said.definition:
        return None
    defined = msgspec.json.decode(said.definition)
    differs = [name for name in _COMPARED_OF_AGENTS if name in defined and defined[name] != row[name]]
    differs += [name for name in _JSON_OF_AGENTS if defined.get(name, {}) != msgspec.json.decode(row[name])]
    return f"has another {' and '.join(differs)} than on record" if differs else None


def _session(recorded: Recorded, row: dict[str, Any]) -> str | None:
    if row["revoked_ns"] is not None:
        return None
    if _id_of(row) in recorded.state.sessions:
        return "is valid, and was ended on record"
    said = recorded.state.people.get(row["person_id"])
    if said is not None and row["created_ns"] < said.removed_ns:
        return f"is valid, and {row['person_id']} was removed on record since"
    return None


def _id_of(row: dict[str, Any]) -> str:
    """A link, session or token as records name it."""
    return key_of("sign_in", (row["token_sha256"],))


def _link(recorded: Recorded, row: dict[str, Any]) -> str | None:
    if row["used_ns"] is not None:
        return None
    if _id_of(row) in recorded.state.links:
        return "is unused, and was used on record"
    said = recorded.state.people.get(row["person_id"])
    if said is not None and row["expires_ns"] - _LINK_NS < said.removed_ns:
        return f"is valid, and {row['person_id']} was removed on record since"
    return None


def _cases(recorded: Recorded, db: Connection, macs: RowMacs) -> None:
    columns = COVERED["approval_case"].columns
    for row in macs.read(db, "approval_case", _OPEN):
        of = dict(zip(columns, row, strict=True))
        said = recorded.state.cases.get(of["id"])
        if said is None:
            macs.distrust("approval_case", row, f"is {of['state']}, and has ended on record", for_ever=True)
        elif of["state"] not in said.states:
            on_record = " or ".join(sorted(said.states))
            macs.distrust("approval_case", row, f"is {of['state']}, and on record it is {on_record}")
        elif (found := (of["fence"], of["votes"], _count(of["findings"]))) != _counts(said):
            macs.distrust("approval_case", row, f"has {_told(*found)}, and on record {_told(*_counts(said))}")
        else:
            macs.saw("approval_case", of["id"], of["version"])
    there = {row[0] for row in db.execute("SELECT id FROM approval_case")}
    for case in recorded.state.cases.keys() - there:
        macs.report("approval_case", case, "is open on record, and was deleted")


def _counts(said: CaseSaid) -> tuple[int, int, int]:
    return said.attempts, said.votes, said.findings


def _count(findings: str | None) -> int:
    return 0 if findings is None else len(msgspec.json.decode(findings))


def _told(attempts: int, votes: int, findings: int) -> str:
    return f"{attempts} attempts, {votes} votes and {findings} findings"


def _digest_of_given(text: str | None) -> str:
    """As records have it; see identity/origin.py."""
    return "" if text is None else sha256(text.encode()).hexdigest()[:16]
