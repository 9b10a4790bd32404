"""A case as the API, the console and the command line show it: one form for all of them.

`summary` is a line of a list, `full` the whole case. Times are RFC 3339 in UTC. Both show what the action would do
(the sentence, the arguments), so a look is recorded by whoever shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gateway import lookalikes
from gateway.actions import ArgumentKind
from gateway.approvals import deciders
from gateway.approvals.case import Attempt, Case, Choice, Comment, Quorum, State, Vote
from gateway.approvals.deciders import Standings, Stands, groups_of, hindrance
from gateway.approvals.requirement import enough
from gateway.catalog.sentences import show
from gateway.catalog.unusual import in_arguments
from gateway.clock import rfc3339

_MAX_DIFFERING = 20
_MAX_COMPARED = 10_000  # characters of a value
_JSON_TYPES = {bool: "true or false", str: "text", int: "a number", float: "a number with a fraction", list: "a list"}


Counts = Callable[[str, Quorum], bool]


def summary(case: Case, votes: Sequence[Vote] | None = None, counts: Counts | None = None) -> dict[str, Any]:
    """A case without what belongs to it. `approved` and `denied` of a quorum are null where `votes` are not given.

    `unusual_characters`: the arguments with characters that can't be seen or could be taken for others; `complete` is
    false where a case has more text than a list looks at. `counts` says whether a person's vote counts for a quorum
    today (see `counting`); without it, each does.
    """
    return {
        "id": case.id,
        "kind": case.kind.value,
        "state": case.state.value,
        "version": case.version,
        "agent": case.agent_id,
        "user": case.action.caller.user,
        "server": case.server,
        "tool": case.tool,
        "target": case.target_id,
        "risk": case.risk,
        "effect": case.effect,
        "sentence": case.card.sentence,
        "unusual_characters": _unusual(case),
        "rules": list(case.card.rules),
        "reasons": list(case.card.reasons),
        "notes": list(case.card.notes),
        "quorum": [_quorum(one, votes, counts) for one in case.requirement.quorum],
        "execute_on": case.requirement.execute_on,
        "opened": rfc3339(case.opened_ns),
        "expires": rfc3339(case.expires_ns),
        "decided": _when(case.decided_ns),
        "ended": _when(case.ended_ns),
        "why": case.why,
        "code": case.code,
        "action": case.action.id,
        "presented_digest": case.presented_digest,
    }


def full(
    case: Case,
    votes: Sequence[Vote],
    comments: Sequence[Comment],
    attempts: Sequence[Attempt],
    like: Sequence[Case],
    *,
    counts: Counts | None = None,
    may_decide: dict[str, Any] | None = None,
    may_reconcile: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A case with all that belongs to it. `like`: others of the same agent and tool that wait, each with the
    arguments in which it `differs`, as a sentence would show them (at most 20; null: not given on that side). Where the
    two sides look the same, `here_points` and `there_points` say by code points or types in what they differ.

    `may_decide` and `may_reconcile` are what the functions of these names say of the person who looks.
    """
    return {
        **summary(case, votes, counts),
        "arguments": case.action.arguments,
        "claimed_purpose": case.card.claimed_purpose,
        "card": msgspec.to_builtins(case.card),
        "votes": [_vote(one) for one in votes],
        **reconciling(case),
        "comments": [
            {"id": one.id, "person": one.person, "text": one.text, "time": rfc3339(one.ts_ns)} for one in comments
        ],
        "attempts": [
            {
                "id": str(one.fence),
                "started": rfc3339(one.started_ns),
                "ended": _when(one.ended_ns),
                "outcome": one.outcome,
                "note": one.note,
            }
            for one in attempts
        ],
        "like": [
            {
                "id": one.id,
                "sentence": one.card.sentence,
                "opened": rfc3339(one.opened_ns),
                "differs": _differs(case, one),
            }
            for one in like
        ],
        "may_decide": may_decide or {"ok": False, "why": "It is not known who asks."},
        "may_reconcile": may_reconcile or {"ok": False, "why": "It is not known who asks."},
    }


def may_decide(
    case: Case,
    person: str,
    standing: Stands | None,
    owners: Iterable[str],
    votes: Sequence[Vote] = (),
    counts: Counts | None = None,
) -> dict[str, Any]:
    """Whether a person could vote on a case now, and if not why: `{"ok": bool, "why": str}`.

    `owners` of the agent as registered now. One who has approved may say so again where the votes are enough by now
    and nobody has counted them since, as when a reviewer has the role back. It only helps to show the right thing: the
    vote itself decides anew.
    """
    why = ""
    if case.state is not State.PENDING:
        why = f"The case is {case.state.value}; nothing is left to decide."
    elif hindered := _hindered(case, person, standing, owners, case.requirement.quorum):
        why = hindered
    elif (said := [one for one in votes if one.person == person and one.counts]) and not (
        said[0].choice is Choice.APPROVE and _is_enough(case, votes, counts)
    ):
        why = "You have voted already; others must decide."
    return {"ok": not why, "why": why}


def may_reconcile(case: Case, person: str, standing: Stands | None, owners: Iterable[str]) -> dict[str, Any]:
    """Whether a person could say now what became of an unknown outcome, as `may_decide` does of a vote."""
    if case.state is not State.UNKNOWN:
        return {"ok": False, "why": f"The case is {case.state.value}; only an unknown outcome is reconciled."}
    why = _hindered(case, person, standing, owners, case.reconciled_by) or ""
    return {"ok": not why, "why": why}


def reconciling(case: Case) -> dict[str, Any]:
    """What reviewers found of an unknown outcome, and how many must find the same. A person's last one counts."""
    last = {one.id for one in case.found}
    return {
        "findings": [
            {
                "id": one.id,
                "person": one.person,
                "outcome": one.outcome.value,
                "note": one.note,
                "time": rfc3339(one.ts_ns),
                "counts": one.id in last,
            }
            for one in case.findings
        ],
        "findings_needed": sum(one.approve for one in case.reconciled_by),
    }


def _hindered(
    case: Case, person: str, standing: Stands | None, owners: Iterable[str], quorums: Sequence[Quorum]
) -> str | None:
    match hindrance(case, person, standing, owners, quorums):
        case "no_reviewer":
            return "You are not a reviewer."
        case "party":
            return f"You own the agent {case.agent_id} or it acts for you, so another reviewer must decide."
        case "group":
            return f"Only members of {groups_of(quorums)} decide this case."
        case None:
            return None


def _is_enough(case: Case, votes: Sequence[Vote], counts: Counts | None) -> bool:
    approving = [one.person for one in votes if one.counts and one.choice is Choice.APPROVE]
    return counts is not None and enough(case.requirement.quorum, approving, counts)


def counting(case: Case, standing: Standings, owners: Iterable[str]) -> Counts:
    """Whether a person's vote counts for a quorum of the case today."""
    owning = tuple(owners)
    return lambda person, quorum: deciders.counts(case, person, quorum, standing(person), owning)


def _quorum(quorum: Quorum, votes: Sequence[Vote] | None, counts: Counts | None) -> dict[str, Any]:
    said: dict[Choice, int | None] = dict.fromkeys(Choice)
    if votes is not None:
        counted = [one for one in votes if one.counts and (counts is None or counts(one.person, quorum))]
        said = {choice: sum(one.choice is choice for one in counted) for choice in Choice}
    return {
        "approve": quorum.approve,
        "deny": quorum.deny,
        "group": quorum.group,
        "approved": said[Choice.APPROVE],
        "denied": said[Choice.DENY],
    }


def _unusual(case: Case) -> dict[str, Any]:
    arguments = case.action.arguments
    kinds = {name: kind for name in arguments if (kind := argument_kind(case.card.target, name)) is not None}
    found = in_arguments(arguments, kinds)
    return {"arguments": list(found.arguments), "complete": found.complete}


def _differs(case: Case, other: Case) -> list[dict[str, str | None]]:
    here, there = case.action.arguments, other.action.arguments
    found: list[dict[str, str | None]] = []
    for name in dict.fromkeys((*here, *there)):
        if len(found) == _MAX_DIFFERING:
            break
        # As bytes: in Python 1, 1.0 and True are equal, in a tool's arguments they are not.
        if name in here and name in there and _bytes(here[name]) == _bytes(there[name]):
            continue
        kind = argument_kind(case.card.target, name)
        sides = {
            side: show(given[name], kind) if name in given else None
            for side, given in (("here", here), ("there", there))
        }
        entry: dict[str, str | None] = {"name": name, **sides}
        if name in here and name in there:
            points = _points(here[name], there[name], shown_alike=sides["here"] == sides["there"])
            if points is not None:
                entry["here_points"], entry["there_points"] = points
        found.append(entry)
    return found


def _points(here: Any, there: Any, *, shown_alike: bool) -> tuple[str, str] | None:
    """In what two values differ that look the same: the code points, or the types. None: they look different."""
    one, other = _text(here), _text(there)
    short = max(len(one), len(other)) <= _MAX_COMPARED
    if not (shown_alike or (short and lookalikes.render_alike(one, other))):
        return None
    if type(here) is not type(there):
        return _json_type(here), _json_type(there)
    one, other = lookalikes.differing(one, other)
    return lookalikes.code_points(one), lookalikes.code_points(other)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _bytes(value).decode("utf-8", "replace")


def _json_type(value: Any) -> str:
    return "null" if value is None else _JSON_TYPES.get(type(value), "an object")


def argument_kind(target: dict[str, Any], name: str) -> ArgumentKind | None:
    """What the manifest says an argument means, from a card's target."""
    declared = target.get("arguments", {}).get(name)
    return None if declared is None else msgspec.convert(declared, ArgumentKind)


def _bytes(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _vote(vote: Vote) -> dict[str, Any]:
    return {
        "id": vote.id,
        "person": vote.person,
        "choice": vote.choice.value,
        "presented_digest": vote.presented_digest,
        "reason": vote.reason,
        "guidance": vote.guidance,
        "time": rfc3339(vote.ts_ns),
        "counts": vote.counts,
    }


def _when(ns: int | None) -> str | None:
    return None if ns is None else rfc3339(ns)
