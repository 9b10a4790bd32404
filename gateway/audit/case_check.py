"""Holds the states of cases against the records of their transitions: each row's state follows from its records.

Who edits a case's row could have something carried out that nobody approved. Rows are read before and after the walk
and only those that stood still are compared, so a decision in between is no finding.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from gateway.verify.trail import Findings

_ROWS = "SELECT id, state, version, agent, action_id FROM approval_case"
_AFTER: dict[str, frozenset[str]] = {
    "action.requested": frozenset({"pending"}),
    "case.requeued": frozenset({"pending"}),
    "case.approved": frozenset({"approved"}),
    "case.denied": frozenset({"denied"}),
    "case.expired": frozenset({"expired"}),
    "case.cancelled": frozenset({"cancelled"}),
    "case.invalidated": frozenset({"invalidated"}),
    "case.unknown": frozenset({"unknown"}),
    "case.reopened": frozenset({"approved"}),
    "action.intent": frozenset({"executing"}),
}
_RUNNING = frozenset({"executing", "unknown"})
# What a result leaves: a failure that certainly did nothing leaves the case approved; one that the gateway made up
# for an attempt that nobody carries on leaves it to `case.unknown`.
_BY_STATUS = {"succeeded": frozenset({"succeeded"}), "failed": frozenset({"failed", "approved"})}


class CaseCheck:
    """Takes the records in order with `add`; `finish` compares."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._before = self._read()
        self._told: dict[str, tuple[frozenset[str], Any, Any]] = {}  # case -> possible states, agent, action id

    def add(self, leaf: dict[str, Any]) -> None:
        """What one record says of a case."""
        case, type_ = leaf["case"], leaf["type"]
        if not isinstance(case, str):
            return
        if type_ == "action.requested":
            allowed = (leaf["decision"] or {}).get("effect") == "allow"  # policy let it pass; nobody is asked
            self._open(case, frozenset({"approved"}) if allowed else _AFTER[type_], leaf)
        elif type_ == "action.result" and case not in self._told:  # it began without people, and now needs them
            self._open(case, frozenset({"unknown"}), leaf)
        elif case in self._told:
            states, agent, action_id = self._told[case]
            self._told[case] = (_next(states, leaf), agent, action_id)

    def _open(self, case: str, states: frozenset[str], leaf: dict[str, Any]) -> None:
        actor, action = leaf["actor"] or {}, leaf["action"] or {}
        self._told[case] = (states, actor.get("agent"), action.get("id"))

    def finish(self, findings: Findings) -> None:
        """All records were seen."""
        after = self._read()
        for case in sorted(self._told.keys() - {row[0] for row in after}):
            findings.add("case_altered", f"table approval_case: the case {case} is on record, but is not there")
        for case, state, _, agent, action_id in sorted(self._before & after, key=repr):
            fault = self._fault(case, state, agent, action_id)
            if fault:
                findings.add("case_altered", f"table approval_case: the case {case} {fault}")

    def _fault(self, case: Any, state: Any, agent: Any, action_id: Any) -> str | None:
        told = self._told.get(case)
        if told is None:
            return f"is {state}, but no record says that it was opened"
        if (agent, action_id) != told[1:]:
            return "belongs to another agent or action than recorded"
        if state not in told[0]:
            return f"is {state}, but on record it is {' or '.join(sorted(told[0]))}"
        return None

    def _read(self) -> set[tuple[Any, ...]]:
        return set(self._connection.execute(_ROWS))


def _next(states: frozenset[str], leaf: dict[str, Any]) -> frozenset[str]:
    type_ = leaf["type"]
    if type_ in _AFTER:
        return _AFTER[type_]
    if type_ == "case.reconciled":
        return frozenset({str(leaf["labels"].get("outcome"))})
    if type_ == "action.result" and states & _RUNNING:  # one that comes after a person reconciled it changes nothing
        return _BY_STATUS.get(str((leaf["result"] or {}).get("status")), _RUNNING)
    released = type_ == "action.decided" and (leaf["action"] or {}).get("kind") == "tool.propose"
    if released and "approved" in states and "replayed" not in leaf["labels"]:
        return frozenset({"succeeded"})
    return states
