"""Policy asked again about what people approved, on the data of today, and whether what they gave still carries it."""

from __future__ import annotations

from typing import NamedTuple

from gateway.actions import Action, Decision, Effect, ToolTarget
from gateway.approvals.case import Case, Requirement
from gateway.rooms import Approvals, Policy

NOBODY = Requirement(quorum=())


class Again(NamedTuple):
    """`requirement`: what the votes must still carry when it begins. `why`: people must look again, or None."""

    decision: Decision
    requirement: Requirement
    why: str | None = None


async def ask_again(policy: Policy, approvals: Approvals, case: Case, action: Action, target: ToolTarget) -> Again:
    """What policy says now, with the approval in its input. A deny is the caller's to act on.

    An allow that owes itself to the votes stands on what they were for: the tool as it was shown, and persons who still
    count. Only where policy allows it without them is nobody needed.
    """
    votes = await approvals.votes(case.id)
    approval = approvals.in_force(case, votes)
    decision = await policy.decide(action, target, approval=approval)
    if decision.effect is Effect.DENY:
        return Again(decision, NOBODY)
    if decision.effect is Effect.ALLOW:
        if approval is None or (await policy.decide(action, target)).effect is Effect.ALLOW:
            return Again(decision, NOBODY)
        requirement = case.requirement
    else:
        requirement = approvals.requirement(decision)
    return Again(decision, requirement, approvals.falls_short(case, votes, target, requirement))
