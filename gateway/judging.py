"""What a model proposes: each tool call in its answer is a child action through the steps 2 to 6 of the path.

A proposal is released to the agent or left out; nothing is performed here. Fails closed: an unreadable proposal, and
one that no rule allows, stays out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.actions import Action, Decision, Effect, Kind, Target, ToolTarget
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.outcomes import refusal_of
from gateway.proposals import Proposal, Verdict, undeclared, unreadable
from gateway.rooms import Audit, LooksUp, Policy


class Judging:
    """Decides proposals; `refused` records those that stay out."""

    def __init__(
        self,
        *,
        catalog: LooksUp,
        policy: Policy,
        audit: Audit,
        refused: Callable[[Action, Target | None, Decision | None, Refusal], None],
        clock: Clock,
        new_id: Callable[[], str],
        digest: Callable[[Action], str],
    ) -> None:
        self._catalog = catalog
        self._policy = policy
        self._audit = audit
        self._refused = refused
        self._clock = clock
        self._new_id = new_id
        self._digest = digest

    async def judge(self, parent: Action, proposals: Sequence[Proposal]) -> list[Verdict]:
        """Each proposal is a child action through the steps 2 to 6; all decisions are durable before release."""
        verdicts: list[Verdict] = []
        allowed: list[tuple[Action, Target, Decision]] = []
        for proposal in proposals:
            child, target = await self._child(parent, proposal)
            decision = unreadable("") if proposal.arguments is None else await self._policy.decide(child, target)
            # A tool that the gateway executes is held at its own door; one that the agent executes is held here.
            release = decision.effect is Effect.ALLOW or (
                decision.effect is Effect.ESCALATE and target.server_kind == "mcp"
            )
            verdicts.append(Verdict(proposal, decision, release))
            if release:
                allowed.append((child, target, decision))
            else:
                self._refused(child, target, decision, refusal_of(child, decision))
        if allowed:
            await self._audit.decided(allowed)
        return verdicts

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
