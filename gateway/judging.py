"""What a model proposes: each tool call in its answer is a child action through the steps 2 to 6 of the path.

A proposal is released to the agent, left out, or waits for a person; nothing is performed here. Fails closed: an
unreadable proposal, and one that no rule allows, stays out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from gateway.actions import Action, Decision, Effect, Kind, Target, ToolTarget
from gateway.approvals.case import NOT_DONE, Case, State
from gateway.asking import ask_again
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.outcomes import refusal_of
from gateway.own_case import APPROVAL_STATUS, OWN_CASE, OWN_TOOL, is_own_question
from gateway.proposals import Proposal, Verdict, undeclared, unreadable
from gateway.rooms import Approvals, Audit, Guards, LooksUp, Observes, Policy
from gateway.waiting import ended_refusal, waiting_refusal

_TWICE = Refusal(
    "conflict", "The same answer asks for the identical call twice, and a person approves one; propose it once."
)
_TRIES = 3
Refused = Callable[[Action, Target | None, Decision | None, Refusal], None]


class _Asking(NamedTuple):
    """A proposal on its way to its case. `waited_for`: the case that its answer was held for.

    `leaves`: its answer leaves now, so what was approved is released, once. Else it waits as well: an approval is not
    used up by an answer of which another part still waits.
    """

    proposal: Proposal
    action: Action
    target: ToolTarget
    answer_id: str
    waited_for: str | None = None
    leaves: bool = False


class Judging:
    """Decides proposals; `refused` records those that stay out."""

    def __init__(
        self,
        *,
        catalog: LooksUp,
        guards: Guards,
        policy: Policy,
        approvals: Approvals,
        audit: Audit,
        refused: Refused,
        observe: Observes,
        clock: Clock,
        new_id: Callable[[], str],
        digest: Callable[[Action], str],
    ) -> None:
        self._catalog = catalog
        self._guards = guards
        self._policy = policy
        self._approvals = approvals
        self._audit = audit
        self._refused = refused
        self._observe = observe
        self._clock = clock
        self._new_id = new_id
        self._digest = digest

    async def judge(
        self, parent: Action, proposals: Sequence[Proposal], answer_id: str, asked: set[str]
    ) -> list[Verdict]:
        """Each proposal is a child action; all decisions are durable before release.

        `answer_id` names the answer that they stand in: what a person approved is released to one answer only, and
        once in it. `asked` holds what people were asked of this answer so far, and grows.
        """
        verdicts: list[Verdict] = []
        allowed: list[tuple[Action, Target, Decision]] = []
        for proposal in proposals:
            await asyncio.sleep(0)  # each takes some time that belongs to others too
            child, target = await self._child(parent, proposal, answer_id)
            try:
                child = msgspec.structs.replace(child, digest=self._digest(child))
            except Refusal as refusal:  # what can't be told from another can't be decided on
                self._refused(child, target, None, refusal)
                verdicts.append(Verdict(proposal, unreadable(), release=False, note=refusal.message))
                continue
            decision = self._unreadable(proposal, target) or await self._decide(child, target)
            if self._concerns_people(child, target, decision):
                asking = _Asking(proposal, child, target, answer_id)
                if child.digest in asked and decision.effect is Effect.ESCALATE:  # one approval lets one call pass
                    verdicts.append(self._left_out(asking, decision, _TWICE))
                    continue
                asked.add(child.digest)
                verdicts.append(await self._ask_people(asking, decision))
            elif decision.effect is Effect.DENY:
                verdicts.append(await self._denied(proposal, child, target, decision))
            else:  # a tool that the gateway executes is held at its own door
                verdicts.append(Verdict(proposal, decision, release=True, action=child, target=target))
                allowed.append((child, target, decision))
        if allowed:
            await self._audit.decided(allowed)
        return verdicts

    def _unreadable(self, proposal: Proposal, target: ToolTarget) -> Decision | None:
        """The denial of a call that could be read in two ways: by its parts, its arguments, or the keys of these."""
        if proposal.arguments is None:
            return unreadable(proposal.fault)
        fault = self._guards.inspect_proposal(proposal.arguments, proposal.parameters, target)
        return None if fault is None else unreadable(f"{fault} Propose it again with the declared names.")

    def _concerns_people(self, child: Action, target: ToolTarget, decision: Decision) -> bool:
        """Whether people are asked, or were asked before: what they said, and their case, is not passed over."""
        if target.server_kind == "mcp" or decision.effect is Effect.DENY:
            return False
        return decision.effect is Effect.ESCALATE or self._approvals.concerns(child)

    async def again(self, verdict: Verdict, answer_id: str, asked: set[str]) -> Verdict:
        """Judge a proposal anew after its answer was held: policy is asked on current data before it is released."""
        if not verdict.release and not verdict.waiting:
            return verdict
        child, target = verdict.action, verdict.target
        assert child is not None
        assert target is not None
        decision = await self._decide(child, target)
        if decision.effect is Effect.DENY:
            return await self._denied(verdict.proposal, child, target, decision)
        if verdict.release and (verdict.case is not None or not self._concerns_people(child, target, decision)):
            return verdict
        asking = _Asking(verdict.proposal, child, target, answer_id, waited_for=verdict.case, leaves=True)
        if verdict.case is None and decision.effect is Effect.ESCALATE:  # policy asks people now, and did not before
            if child.digest in asked:
                return self._left_out(asking, decision, _TWICE)
            asked.add(child.digest)
        return await self._ask_people(asking, decision)

    async def still_waiting(self, verdicts: Sequence[Verdict]) -> Refusal:
        """The hold is over, and people have not decided on all of these: what the caller is told of the first."""
        told: list[tuple[Case, Refusal]] = []
        for verdict in verdicts:
            assert verdict.case is not None
            assert verdict.action is not None
            case = await self._approvals.case(verdict.case)
            refusal = waiting_refusal(case)
            told.append((case, refusal))
            if case.action.id != verdict.action.id:  # else it is on record as requested
                self._refused(verdict.action, verdict.target, verdict.decision, refusal)
        return next((refusal for case, refusal in told if case.state is State.PENDING), told[0][1])

    async def _ask_people(self, asking: _Asking, decision: Decision) -> Verdict:
        """The proposal meets its case: it waits, or is released, or is left out in words the model can use."""
        refusal: Refusal
        for _ in range(_TRIES):
            try:
                return await self._meet(asking, decision)
            except Refusal as refused:
                if refused.http_status >= 500 or refused.code == "agent_suspended":  # then nothing leaves at all
                    raise
                refusal = refused
                if refusal.code != "decided":  # else somebody was faster, and what they did is met
                    break
        return self._left_out(asking, decision, refusal)

    async def _meet(self, asking: _Asking, decision: Decision) -> Verdict:
        proposal, child, target, answer_id, waited_for, leaves = asking
        if waited_for is not None and (case := await self._approvals.case(waited_for)).state in NOT_DONE:
            return self._left_out(asking, decision, ended_refusal(case), case)
        met = await self._approvals.meet(child, target, decision, answer_id=answer_id)
        if met is None:  # policy allows it now, and nobody has to be asked
            await self._audit.decided([(child, target, decision)])
            return Verdict(proposal, decision, release=True, action=child, target=target)
        case = met.case
        waiting = Verdict(proposal, decision, False, child, target, case.id, waiting=True)
        if case.state is State.PENDING or (case.state is State.APPROVED and not leaves):
            return waiting
        if case.state is State.APPROVED:
            decision, requirement, why = await ask_again(self._policy, self._approvals, case, child, target)
            if decision.effect is Effect.DENY:
                return await self._denied(proposal, child, target, decision)
            if why is not None:
                await self._approvals.requeue(case, target, decision, why=why)
                return waiting
            await self._approvals.release(case, child, target, decision, requirement, answer_id)
        elif case.state is State.SUCCEEDED and case.released_to == answer_id:
            await self._audit.decided([(child, target, decision)], case=case.id, replayed=True)
        else:
            return self._left_out(asking, decision, ended_refusal(case), case)
        return Verdict(proposal, decision, release=True, action=child, target=target, case=case.id)

    def _left_out(self, asking: _Asking, decision: Decision, refusal: Refusal, case: Case | None = None) -> Verdict:
        """It does not leave with its answer; of a case that it opened itself, the records tell how it ended."""
        if case is None or case.action.id != asking.action.id:
            self._refused(asking.action, asking.target, decision, refusal)
        case_id = None if case is None else case.id
        return Verdict(asking.proposal, decision, release=False, case=case_id, note=refusal.message)

    async def _denied(self, proposal: Proposal, child: Action, target: ToolTarget, decision: Decision) -> Verdict:
        """Policy stands against it now, whatever people said: an approval that is in force ends here."""
        refusal = refusal_of(child, decision)
        case = await self._approvals.open_case(child) if self._approvals.concerns(child) else None
        if case is not None and case.kind is Kind.TOOL_PROPOSE and case.state is State.APPROVED:
            try:
                await self._approvals.invalidate(case, code=refusal.code, why=refusal.message, rules=refusal.rules)
            except Refusal as late:
                if late.code != "decided":  # else it ended otherwise in between; this call stays out all the same
                    raise
        self._refused(child, target, decision, refusal)
        return Verdict(proposal, decision, release=False)

    async def _child(self, parent: Action, proposal: Proposal, answer_id: str) -> tuple[Action, ToolTarget]:
        """The proposal as an action, without its digest; its parent is the model call whose answer it stands in."""
        own = proposal.name == APPROVAL_STATUS and is_own_question(proposal.arguments)
        target = OWN_TOOL if own else self._catalog.executable(proposal)
        if target is not None and target is not OWN_TOOL and not await self._may_see(parent, target):
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
            parent=answer_id,
            idempotency_key=None,
            digest="",
        )
        return child, target

    async def _decide(self, child: Action, target: ToolTarget) -> Decision:
        if target is OWN_TOOL:
            return OWN_CASE
        with self._observe.span("decide", child):
            decision = await self._policy.decide(child, target)
            self._observe.decided(child, decision)
            return decision

    async def _may_see(self, action: Action, tool: ToolTarget) -> bool:
        listing = msgspec.structs.replace(action, kind=Kind.TOOL_LIST, target=tool.server, arguments={})
        return (await self._policy.decide(listing, tool)).effect is not Effect.DENY
