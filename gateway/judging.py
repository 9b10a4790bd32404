"""What a model proposes: each tool call in its answer is a child action through the steps 2 to 6 of the path.

A proposal is released to the agent, left out, or waits for a person; nothing is performed here. Fails closed: an
unreadable proposal, and one that no rule allows, stays out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.actions import Action, Decision, Effect, Kind, Target, ToolTarget
from gateway.approvals.case import Case, State
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.outcomes import refusal_of
from gateway.proposals import Proposal, Verdict, undeclared, unreadable
from gateway.rooms import Approvals, Audit, LooksUp, Policy
from gateway.waiting import ended_refusal, waiting_refusal

_TWICE = Refusal(
    "conflict", "The same answer asks for the identical call twice, and a person approves one; propose it once."
)
Refused = Callable[[Action, Target | None, Decision | None, Refusal], None]


class Judging:
    """Decides proposals; `refused` records those that stay out."""

    def __init__(
        self,
        *,
        catalog: LooksUp,
        policy: Policy,
        approvals: Approvals,
        audit: Audit,
        refused: Refused,
        clock: Clock,
        new_id: Callable[[], str],
        digest: Callable[[Action], str],
    ) -> None:
        self._catalog = catalog
        self._policy = policy
        self._approvals = approvals
        self._audit = audit
        self._refused = refused
        self._clock = clock
        self._new_id = new_id
        self._digest = digest

    async def judge(self, parent: Action, proposals: Sequence[Proposal], answer_id: str) -> list[Verdict]:
        """Each proposal is a child action; all decisions are durable before release.

        `answer_id` names the answer that they stand in: what a person approved is released to one answer only.
        """
        verdicts: list[Verdict] = []
        allowed: list[tuple[Action, Target, Decision]] = []
        asked: set[str] = set()
        for proposal in proposals:
            child, target = await self._child(parent, proposal)
            decision = unreadable("") if proposal.arguments is None else await self._policy.decide(child, target)
            if decision.effect is Effect.ESCALATE and target.server_kind != "mcp":
                if child.digest in asked:  # one approval lets one call pass
                    self._refused(child, target, decision, _TWICE)
                    verdicts.append(Verdict(proposal, decision, release=False, note=_TWICE.message))
                    continue
                asked.add(child.digest)
                verdicts.append(await self._ask_people(proposal, child, target, decision, answer_id))
                continue
            # A tool that the gateway executes is held at its own door.
            release = decision.effect is not Effect.DENY
            verdicts.append(Verdict(proposal, decision, release))
            if release:
                allowed.append((child, target, decision))
            else:
                self._refused(child, target, decision, refusal_of(child, decision))
        if allowed:
            await self._audit.decided(allowed)
        return verdicts

    async def again(self, verdict: Verdict, answer_id: str) -> Verdict:
        """Judge a proposal anew that waited: policy is asked on current data before it is released."""
        child, target = verdict.action, verdict.target
        assert child is not None
        assert target is not None
        decision = await self._policy.decide(child, target)
        if decision.effect is not Effect.DENY:
            return await self._ask_people(verdict.proposal, child, target, decision, answer_id)
        case = None if verdict.case is None else await self._approvals.case(verdict.case)
        return await self._denied(verdict.proposal, child, target, decision, case)

    async def _ask_people(
        self, proposal: Proposal, child: Action, target: ToolTarget, decision: Decision, answer_id: str
    ) -> Verdict:
        """The proposal meets its case: it waits, or is released once, or is left out in words the model can use."""
        try:
            met = await self._approvals.meet(child, target, decision, answer_id=answer_id)
            if met is None:  # policy allows it now, and nobody has to be asked
                await self._audit.decided([(child, target, decision)])
                return Verdict(proposal, decision, release=True)
            case = met.case
            if case.state is State.APPROVED:
                votes = await self._approvals.votes(case.id)
                decision = await self._policy.decide(child, target, approval=self._approvals.in_force(case, votes))
                if decision.effect is Effect.DENY:
                    return await self._denied(proposal, child, target, decision, case)
                why = self._approvals.falls_short(case, votes, target, decision)
                if why is not None:
                    case = await self._approvals.requeue(case, target, decision, why=why)
                    return self._left_out(proposal, child, target, decision, case, opened=False)
                await self._approvals.release(case, child, target, decision, answer_id)
            elif case.state is State.SUCCEEDED and case.released_to == answer_id:
                await self._audit.decided([(child, target, decision)], case=case.id, replayed=True)
            else:
                return self._left_out(proposal, child, target, decision, case, opened=met.opened)
        except Refusal as refusal:
            if refusal.http_status >= 500:
                raise
            self._refused(child, target, decision, refusal)
            return Verdict(proposal, decision, release=False, note=refusal.message)
        return Verdict(proposal, decision, release=True, action=child, target=target, case=case.id)

    async def _denied(
        self, proposal: Proposal, child: Action, target: ToolTarget, decision: Decision, case: Case | None
    ) -> Verdict:
        """Policy stands against it now, whatever people said."""
        refusal = refusal_of(child, decision)
        if case is not None and case.state in (State.PENDING, State.APPROVED):
            try:
                await self._approvals.invalidate(case, code=refusal.code, why=refusal.message, rules=refusal.rules)
            except Refusal as late:
                if late.code != "decided":  # else it ended otherwise in between; this call stays out all the same
                    raise
        self._refused(child, target, decision, refusal)
        return Verdict(proposal, decision, release=False)

    def _left_out(
        self, proposal: Proposal, child: Action, target: ToolTarget, decision: Decision, case: Case, *, opened: bool
    ) -> Verdict:
        if case.state is State.PENDING:
            if not opened and case.action.id != child.id:
                self._refused(child, target, decision, waiting_refusal(case))
            return Verdict(proposal, decision, release=False, action=child, target=target, case=case.id, waiting=True)
        refusal = ended_refusal(case)
        if case.action.id != child.id:
            self._refused(child, target, decision, refusal)
        return Verdict(proposal, decision, release=False, case=case.id, note=refusal.message)

    async def _child(self, parent: Action, proposal: Proposal) -> tuple[Action, ToolTarget]:
        target = self._catalog.executable(proposal)
        if target is not None and not await self._may_see(parent, target):
            target = None  # a name means our tool only for an agent that may see it: hidden ones look like unknown ones
        if target is None:
            target = self._catalog.client_tool(proposal.name) or undeclared(proposal.name)
        child = msgspec.structs.replace(
            parent,
            id=self._new_id(),
            kind=Kind.TOOL_PROPOSE,
            target=target.id,
            received_ns=self._clock.now_ns(),
            arguments=proposal.arguments or {},
            body=None,
            stream=False,
            parent=parent.id,
            idempotency_key=None,
        )
        child = msgspec.structs.replace(child, digest=self._digest(child))
        return child, target

    async def _may_see(self, action: Action, tool: ToolTarget) -> bool:
        listing = msgspec.structs.replace(action, kind=Kind.TOOL_LIST, target=tool.server, arguments={})
        return (await self._policy.decide(listing, tool)).effect is not Effect.DENY
