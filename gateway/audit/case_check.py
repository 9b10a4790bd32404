"""Holds the states of cases against the records of their transitions: each row's state follows from its records.

Who edits a case's row could have something carried out that nobody approved. Rows are read before and after the walk
and only those that stood still are compared, so a decision in between is no finding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from gateway.audit.wrong import Wrong
from gateway.store.interface import Connection

_ROWS = (
    'SELECT id, state, version, agent, action_id, kind, server, tool, digest, definition_digest, "user",'
    " presented_digest, requirement, open, fence, {findings} FROM approval_case"
)
_VOTES = "SELECT id, case_id, person, choice, presented_digest, {makers} FROM case_vote"
_COMMENTS = "SELECT id, case_id, person FROM case_comment"
_ATTEMPTS = "SELECT case_id, count(*) FROM case_attempt GROUP BY case_id"
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
_SCHEMA = "0008"  # whose columns are read here
OPEN_STATES = frozenset({"pending", "approved", "executing", "unknown"})
_RUNNING = frozenset({"executing", "unknown"})
# What a result leaves: a failure that certainly did nothing leaves the case approved; one that the gateway made up
# for an attempt that nobody carries on leaves it to `case.unknown`.
_BY_STATUS = {"succeeded": frozenset({"succeeded"}), "failed": frozenset({"failed", "approved"})}


class _Told:
    """What the records say of a case."""

    def __init__(self, states: frozenset[str], leaf: dict[str, Any]) -> None:
        actor, action, labels = leaf["actor"] or {}, leaf["action"] or {}, leaf["labels"]
        self.states = states
        self.facts = {
            "agent": actor.get("agent"),
            "action_id": action.get("id"),
            "kind": action.get("kind"),
            "server": action.get("server"),
            "tool": action.get("tool"),
            "digest": action.get("digest"),
            "definition_digest": action.get("definition_digest"),
            "user": actor.get("user"),
        }
        self.bound = _bound(labels)
        self.findings: list[tuple[Any, ...]] = []  # ID, person, outcome
        self.attempts = int(leaf["type"] == "action.result")  # one that began without a case, and got lost


class CaseCheck:
    """Takes the records in order with `add`; `finish` compares cases, votes and attempts with them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        older = is_older(connection)
        self._rows = _ROWS.format(findings="NULL" if older else "findings")
        self._before = self._read(self._rows)
        self._votes_of = _VOTES.format(makers="NULL" if older else "makers")
        self._votes_before = self._read(self._votes_of)
        self._comments_before = self._read(_COMMENTS)
        self._told: dict[str, _Told] = {}
        self._comments: dict[str, tuple[Any, ...]] = {}  # id -> case, person
        self._votes: dict[str, tuple[Any, ...]] = {}  # id -> case, person, choice, presented_digest, makers

    def add(self, leaf: dict[str, Any]) -> None:
        """What one record says of a case."""
        case, type_ = leaf["case"], leaf["type"]
        if not isinstance(case, str):
            return
        labels = leaf["labels"]
        if type_ == "action.requested":
            self._told[case] = _Told(states_of_request(leaf), leaf)
        elif type_ == "action.result" and case not in self._told:  # it began without people, and now needs them
            self._told[case] = _Told(frozenset({"unknown"}), leaf)
        elif case in self._told:
            told = self._told[case]
            told.states = next_states(told.states, leaf)
            told.attempts += type_ == "action.intent"
            if type_ == "case.requeued":
                told.bound = _bound(labels)
                told.facts["definition_digest"] = labels.get("definition_digest")
            if type_ == "case.commented":
                self._comments[labels.get("comment", "")] = (case, (leaf["actor"] or {}).get("user"))
            if "finding" in labels:
                person = (leaf["actor"] or {}).get("user")
                told.findings.append((labels["finding"], person, labels.get("outcome")))
            if (vote := labels.get("vote", labels.get("replaced_vote"))) is not None:
                person = (leaf["actor"] or {}).get("user")
                makers = (
                    json.dumps(labels["makers"].split(","), separators=(",", ":"), ensure_ascii=False)
                    if "makers" in labels
                    else None
                )
                said = (case, person, labels.get("choice"), labels.get("presented_digest"), makers)
                self._votes[vote] = said

    def wrong(self) -> Iterator[Wrong]:
        """All records were seen."""
        after = self._read(self._rows)
        attempts = dict(self._read(_ATTEMPTS))
        for case in sorted(self._told.keys() - {row[0] for row in after}):
            yield Wrong("approval_case", case, f"the case {case} is on record, but is not there")
        for row in sorted(self._before & after, key=repr):
            fault = self._fault(row, attempts.get(row[0], 0))
            if fault:
                yield Wrong("approval_case", str(row[0]), f"the case {row[0]} {fault}")
        yield from self._wrong_votes()

    def _wrong_votes(self) -> Iterator[Wrong]:
        votes = self._read(self._votes_of)
        for vote, *said in sorted(self._votes_before & votes, key=repr):
            if self._votes.get(vote) != tuple(said):
                yield Wrong("case_vote", str(vote), f"the vote {vote} is not on record as it stands there")
        for vote in sorted(self._votes.keys() - {row[0] for row in votes}):
            yield Wrong("case_vote", vote, f"the vote {vote} is on record, but is not there")
        for comment, case, person in sorted(self._comments_before & self._read(_COMMENTS), key=repr):
            if self._comments.get(comment) != (case, person):
                yield Wrong("case_comment", str(comment), f"no record says that {person} wrote the comment {comment}")

    def _fault(self, row: tuple[Any, ...], attempts: int) -> str | None:
        case, state, _, *rest, presented, requirement, is_open, fence, findings = row
        told = self._told.get(case)
        if told is None:
            return f"is {state}, but no record says that it was opened"
        wrong = [name for (name, said), stands in zip(told.facts.items(), rest, strict=True) if said != stands]
        if wrong:
            return f"has another {' and '.join(wrong)} than recorded"
        if state not in told.states:
            return f"is {state}, but on record it is {' or '.join(sorted(told.states))}"
        if told.bound not in (None, (presented, f"sha256:{sha256(requirement.encode()).hexdigest()}")):
            return "was shown otherwise, or asks for other people, than recorded"
        if is_open != (state in OPEN_STATES):
            return f"is {state}, but {'open' if is_open else 'not open'}"
        if (told.findings or None) != _findings(findings):
            return "has other findings of its outcome than recorded"
        if not told.attempts == attempts == fence:
            return f"has {attempts} attempts and the fence {fence}, but {told.attempts} are on record"
        return None

    def _read(self, rows: str) -> set[tuple[Any, ...]]:
        return set(self._connection.execute(rows))


def is_older(connection: Connection) -> bool:
    """Whether the database is of a version without the columns that came last."""
    version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return version is None or str(version[0]) < _SCHEMA


def _findings(text: Any) -> list[tuple[Any, ...]] | None:
    """Those of a row, as records name them; None: it has none."""
    if text is None:
        return None
    try:
        return [(one["id"], one["person"], one["outcome"]) for one in json.loads(text)]
    except (TypeError, ValueError, KeyError, RecursionError):
        return [(repr(text),)]


def _bound(labels: dict[str, str]) -> tuple[str | None, str | None] | None:
    if "requirement_digest" not in labels:
        return None
    return labels.get("presented_digest"), labels["requirement_digest"]


def states_of_request(leaf: dict[str, Any]) -> frozenset[str]:
    """The states that a case may be in after the record that opened it."""
    allowed = (leaf["decision"] or {}).get("effect") == "allow"  # policy let it pass; nobody is asked
    return frozenset({"approved"}) if allowed else _AFTER["action.requested"]


def next_states(states: frozenset[str], leaf: dict[str, Any]) -> frozenset[str]:
    """The states that a case may be in after one more record of it."""
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
