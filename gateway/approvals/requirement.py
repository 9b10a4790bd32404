"""What a policy's answer asks of people, read strictly: an obligation that can't be read lets nobody approve."""

from __future__ import annotations

from gateway.actions import Decision
from gateway.approvals.case import Quorum, Requirement
from gateway.config import Approvals as Settings
from gateway.errors import Refusal
from gateway.obligations import UNREADABLE_RULE, UnreadableObligation, read_approvals


def requirement(decision: Decision, settings: Settings) -> Requirement:
    """What it takes to pass: all quorums of all obligations, the least time to live, `claim` if any says so.

    Raises Refusal(denied_by_policy) with the rule `obligation_unreadable` for one that can't be read.
    """
    try:
        asked = read_approvals(decision.obligations)
    except UnreadableObligation as error:
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


def _unreadable(decision: Decision, what: str) -> Refusal:
    """What is wrong is for the policy's author, so it goes into the record; the agent can only pass it on."""
    return Refusal(
        "denied_by_policy",
        "A person would have to approve this, but the policy's request for approval is faulty, so it is denied. Tell"
        " the operator of the gateway.",
        rules=(*decision.rules, UNREADABLE_RULE),
        reasons=decision.reasons,
        notes=(f"The policy's obligation cannot be used: {what}.",),
    )
