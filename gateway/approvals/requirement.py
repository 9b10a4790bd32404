"""What a policy's answer asks of people, read strictly: an obligation that can't be read lets nobody approve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal

import msgspec

from gateway.actions import Decision
from gateway.approvals.case import Quorum, Requirement
from gateway.config import Approvals as Settings
from gateway.errors import Refusal

UNREADABLE_RULE = "obligation_unreadable"
OBLIGATION = "approval"
_MAX_TTL_S = 30 * 86_400

_Count = Annotated[int, msgspec.Meta(ge=1, le=20)]


class _Quorum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    approve: _Count = 1
    deny: _Count = 1
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class _Obligation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    quorum: Annotated[tuple[_Quorum, ...], msgspec.Meta(min_length=1, max_length=8)] = (_Quorum(),)
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=_MAX_TTL_S)] | None = None
    execute_on: Literal["decision", "claim"] | None = None


def requirement(decision: Decision, settings: Settings) -> Requirement:
    """What it takes to pass: all quorums of all obligations, the least time to live, `claim` if any says so.

    Raises Refusal(denied_by_policy) with the rule `obligation_unreadable` for one that can't be read.
    """
    asked: list[_Obligation] = []
    for obligation in decision.obligations:
        if OBLIGATION not in obligation:
            continue
        try:
            if len(obligation) > 1:
                raise msgspec.ValidationError("it has more keys than `approval`")
            asked.append(msgspec.convert(obligation[OBLIGATION], _Obligation))
        except msgspec.ValidationError as error:
            raise _unreadable(decision, str(error)) from error
    quorums = dict.fromkeys(Quorum(one.approve, one.deny, one.group) for each in asked for one in each.quorum)
    for quorum in quorums:
        if quorum.group is not None and quorum.group not in settings.groups:
            raise _unreadable(decision, f"approvals.groups of gateway.yaml does not name the group {quorum.group!r}")
    times_s = [one.ttl_s for one in asked if one.ttl_s is not None]
    claims = [one.execute_on for one in asked if one.execute_on is not None]
    return Requirement(
        quorum=tuple(quorums) or (Quorum(),),
        ttl_s=min(times_s, default=settings.ttl_s),
        execute_on="claim" if "claim" in claims else claims[0] if claims else settings.execute_on,
    )


def enough(quorums: Sequence[Quorum], persons: Iterable[str], counts: Callable[[str, Quorum], bool]) -> bool:
    """Whether distinct persons fill every place of every quorum: nobody fills two (a bipartite matching)."""
    places = [quorum for quorum in quorums for _ in range(quorum.approve)]
    people = list(dict.fromkeys(persons))
    taken: dict[str, int] = {}

    def find(place: int, tried: set[str]) -> bool:
        for person in people:
            if person in tried or not counts(person, places[place]):
                continue
            tried.add(person)
            if person not in taken or find(taken[person], tried):
                taken[person] = place
                return True
        return False

    return all(find(place, set()) for place in range(len(places)))


def _unreadable(decision: Decision, what: str) -> Refusal:
    return Refusal(
        "denied_by_policy",
        f"A person would have to approve it, but what the policy asks of them can't be read: {what}. Tell its author.",
        rules=(*decision.rules, UNREADABLE_RULE),
        reasons=decision.reasons,
    )
