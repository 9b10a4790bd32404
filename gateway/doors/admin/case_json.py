"""A case as the API, the console and the command line show it: one form for all of them.

`summary` is a line of a list, `full` the whole case. Times are RFC 3339 in UTC. Both show what the action would do
(the sentence, the arguments), so a look is recorded by whoever shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gateway import lookalikes
from gateway.actions import ArgumentKind
from gateway.approvals.case import Attempt, Case, Choice, Comment, Quorum, State, Vote
from gateway.approvals.deciders import Stands, groups_of, hindrance
from gateway.approvals.places import Places
from gateway.catalog.sentences import show
from gateway.catalog.unusual import in_arguments
from gateway.clock import rfc3339

_MAX_DIFFERING = 20
_MAX_COMPARED = 10_000  # characters of a value
_MAX_RANKED = 300  # the same, where many cases are looked at
_SHOWN_LIKE = 5
_JSON_TYPES = {bool: "true or false", str: "text", int: "a number", float: "a number with a fraction", list: "a list"}


def summary(case: Case, votes: Sequence[Vote] | None = None, places: Places | None = None) -> dict[str, Any]:
    """A case without what belongs to it. `approved` and `denied` of a quorum are null where `votes` are not given.

    `unusual_characters`: the arguments with characters that can't be seen or could be taken for others; `complete` is
    false where a case has more text than a list looks at. `places` counts the votes by what people may do today;
    without it, each counts.
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
        "quorum": [_quorum(one, votes, places) for one in case.requirement.quorum],
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
    places: Places | None = None,
    may_decide: dict[str, Any] | None = None,
    may_reconcile: dict[str, Any] | None = None,
    no_place: str = "",
) -> dict[str, Any]:
    """A case with all that belongs to it. `like`: others of the same agent and tool that wait; of these the five that
    are most alike, each with the arguments in which it `differs`, as a sentence would show them (at most 20; null: not
    given on that side). Where the two sides look the same, `here_points` and `there_points` say by code points or types
    in what they differ.

    `may_decide`, `may_reconcile` and `no_place` are what the functions of these names say of the person who looks.
    """
    return {
        **summary(case, votes, places),
        "arguments": case.action.arguments,
        "claimed_purpose": case.card.claimed_purpose,
        "card": msgspec.to_builtins(case.card),
        "votes": _votes(votes, places),
        **reconciling(case, places),
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
            for one in _most_alike(case, like)
        ],
        "like_count": len(like),
        "may_decide": may_decide or {"ok": False, "why": "It is not known who asks."},
        "may_reconcile": may_reconcile or {"ok": False, "why": "It is not known who asks."},
        "no_place": no_place,
    }


def may_decide(
    case: Case,
    person: str,
    standing: Stands | None,
    owners: Iterable[str],
    votes: Sequence[Vote] = (),
    places: Places | None = None,
    makers: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Whether a person could vote on a case now, and if not why: `{"ok": bool, "why": str}`.

    `owners` of the agent as registered now. One who has approved may say so again where the votes are enough by now
    and nobody has counted them since, as when a reviewer has the role back; and one whose session has fewer `makers`
    than their vote. It only helps to show the right thing: the vote itself decides anew.
    """
    why = ""
    if case.state is not State.PENDING:
        why = f"The case is {case.state.value}; nothing is left to decide."
    elif hindered := _hindered(case, person, standing, owners, case.requirement.quorum):
        why = hindered
    elif (said := [one for one in votes if one.person == person and one.counts]) and not (
        set(makers) < set(said[0].makers)
        or (said[0].choice is Choice.APPROVE and places is not None and places.enough(places.approvals(votes)))
    ):
        why = "You have voted already; others must decide."
    return {"ok": not why, "why": why}


def may_reconcile(case: Case, person: str, standing: Stands | None, owners: Iterable[str]) -> dict[str, Any]:
    """Whether a person could say now what became of an unknown outcome, as `may_decide` does of a vote."""
    if case.state is not State.UNKNOWN:
        why = f"The case is {case.state.value}; only an unknown outcome is reconciled."
        return {"ok": False, "why": why}
    why = _hindered(case, person, standing, owners, case.reconciled_by) or ""
    return {"ok": not why, "why": why}


def no_place(case: Case, person: str, makers: tuple[str, ...], votes: Sequence[Vote], places: Places) -> str:
    """Why an approval or a finding of theirs would fill no place as things are; '' if it would. `makers`: of their
    session."""
    said = case.found if case.state is State.UNKNOWN else [one for one in votes if one.counts]
    return places.hindered_by_maker(person, makers, [one.person for one in said])


def reconciling(case: Case, places: Places | None = None) -> dict[str, Any]:
    """What reviewers found of an unknown outcome, and how many must find the same. A person's last one counts."""
    last = {one.id for one in case.found}
    why_not: dict[str, str] = {}
    if places is not None:
        for outcome in (State.SUCCEEDED, State.FAILED):
            why_not |= places.findings(outcome).why_not
    return {
        "findings": [
            {
                "id": one.id,
                "person": one.person,
                "outcome": one.outcome.value,
                "note": one.note,
                "time": rfc3339(one.ts_ns),
                "counts": one.id in last,
                "makers": list(one.makers),
                "no_place": why_not.get(one.id, ""),
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


def _quorum(quorum: Quorum, votes: Sequence[Vote] | None, places: Places | None) -> dict[str, Any]:
    said: dict[Choice, int | None] = dict.fromkeys(Choice)
    if votes is not None and places is not None:
        said = {
            Choice.APPROVE: places.filled(quorum, places.approvals(votes)),
            Choice.DENY: places.filled(quorum, places.denials(votes)),
        }
    elif votes is not None:
        said = {choice: sum(one.counts and one.choice is choice for one in votes) for choice in Choice}
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


def _most_alike(case: Case, like: Sequence[Case]) -> list[Case]:
    """What could be taken for the case first, then what differs in the fewest arguments. Newest first otherwise."""
    here = {name: _bytes(value) for name, value in case.action.arguments.items()}

    def rank(other: Case) -> tuple[bool, int]:
        arguments = other.action.arguments
        there = {name: _bytes(value) for name, value in arguments.items()}
        differing = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
        texts = [(case.action.arguments.get(name), arguments.get(name)) for name in differing]
        alike = any(_looks_like(one, two) for one, two in texts)
        return not alike, len(differing)

    return sorted(like, key=rank)[:_SHOWN_LIKE]


def _looks_like(one: Any, other: Any) -> bool:
    if not isinstance(one, str) or not isinstance(other, str) or max(len(one), len(other)) > _MAX_RANKED:
        return False
    return lookalikes.render_alike(one, other)


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


def _votes(votes: Sequence[Vote], places: Places | None) -> list[dict[str, Any]]:
    """`no_place`: why an approval fills no place, or a vote none of its own."""
    why_not: dict[str, str] = {}
    if places is not None:
        why_not = places.approvals(votes).why_not | places.denials(votes).why_not
    return [_vote(one, why_not.get(one.id, "")) for one in votes]


def _vote(vote: Vote, no_place: str) -> dict[str, Any]:
    return {
        "id": vote.id,
        "person": vote.person,
        "choice": vote.choice.value,
        "presented_digest": vote.presented_digest,
        "reason": vote.reason,
        "guidance": vote.guidance,
        "time": rfc3339(vote.ts_ns),
        "counts": vote.counts,
        "makers": list(vote.makers),
        "no_place": no_place,
    }


def _when(ns: int | None) -> str | None:
    return None if ns is None else rfc3339(ns)
