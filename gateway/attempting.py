"""What people approve runs once: an attempt in a task of the gateway's own, on data of today.

Policy is asked again, the attempt's row and the intent are durable before anything is sent, and the end is sealed in
the transaction of the result's record. Fails closed: what can't be decided again, or begun exactly once, is not done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from gateway.actions import (
    Action,
    Agent,
    Cost,
    Decision,
    Effect,
    Kind,
    Reply,
    Reservation,
    Result,
    Target,
    ToolTarget,
)
from gateway.approvals.case import Case, Ending, Requirement, State
from gateway.asking import ask_again
from gateway.errors import Refusal
from gateway.outcomes import active_or_refuse, refusal_of
from gateway.rooms import Approvals, Audit, Guards, Limits, LooksUp, Observes, Persist, Policy
from gateway.running import Running

log = structlog.get_logger("gateway.attempting")

_TRIES = 3
Perform = Callable[[Running, Target, Decision, Reservation], Awaitable[Reply | None]]


class Attempting:
    """Carries out what was approved. `perform` is the path's steps 9 to 12."""

    def __init__(
        self,
        *,
        approvals: Approvals,
        catalog: LooksUp,
        limits: Limits,
        guards: Guards,
        policy: Policy,
        audit: Audit,
        agent: Callable[[str], Agent | None],
        observe: Observes,
        perform: Perform,
    ) -> None:
        self._approvals = approvals
        self._catalog = catalog
        self._limits = limits
        self._guards = guards
        self._policy = policy
        self._audit = audit
        self._agent = agent
        self._observe = observe
        self._perform = perform
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def approved(self, case: Case) -> None:
        """People have approved a case: it runs now, unless it waits to be claimed."""
        if case.kind is Kind.TOOL_CALL and case.requirement.execute_on == "decision":
            self.carry_out(case)

    async def resume(self) -> None:
        """Carry out what was approved before a restart and not begun."""
        for case_id in await self._approvals.to_run():
            self.carry_out(await self._approvals.case(case_id))

    def carry_out(self, case: Case) -> None:
        """Begin an attempt in a task of its own, unless one is under way."""
        if case.id in self._attempts or self._stopping:
            return
        task = asyncio.get_running_loop().create_task(self._attempt(case.id), name=f"case-{case.id}")
        self._attempts[case.id] = task
        task.add_done_callback(lambda done: self._attempt_over(case.id, done))

    def _attempt_over(self, case_id: str, task: asyncio.Task[None]) -> None:
        self._attempts.pop(case_id, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("attempt_fault", case=case_id, exc_info=fault)

    def under_way(self, case_id: str) -> bool:
        """Whether an attempt of a case runs here."""
        return case_id in self._attempts

    async def stop(self, grace_s: float) -> None:
        """Let attempts finish for `grace_s`, then end them: their outcome is unknown."""
        self._stopping = True
        tasks = list(self._attempts.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5)

    async def _attempt(self, case_id: str) -> None:
        """Decide again on current data, reserve, and perform; whatever stands against it leaves it undone."""
        for _ in range(_TRIES):
            case = await self._approvals.case(case_id)
            if case.state is not State.APPROVED:
                return
            with self._observe.attempt(case.action, case_id):
                moved = await self._try(case)
            if not moved:
                return

    async def _try(self, case: Case) -> bool:
        """One attempt; True where the ground moved under it before anything was sent: then it is decided anew."""
        try:
            prepared = await self._decide_again(case)
            if prepared is None:
                return False
            action, target, decision, inspected, requirement = prepared
            held = await self._limits.reserve(action, target)
        except Refusal as refusal:
            await self._blocked(case, refusal)
            return False
        running = Running(action, None)
        running.attempt, running.decision, running.recorded = case.id, decision, True
        begin = self._approvals.begin(case, requirement)
        try:
            with self._observe.span("intent", action):
                await self._audit.intent(action, target, decision, held, inspected, also=begin, case=case.id)
        except BaseException as fault:
            self._limits.settle(held, Cost())
            if not isinstance(fault, Refusal):
                raise
            if fault.code == "decided":  # somebody was first: another attempt, a vote that counts no more, the clock
                return True
            if fault.code == "audit_unavailable":  # it may become durable all the same, but nothing is sent
                self._approvals.given_up(case)
            await self._blocked(case, fault)
            return False
        await self._approvals.changed(case.id)
        try:
            await self._perform(running, target, decision, held)
        except Refusal as refusal:  # stored as the case's end, and told to whoever waits
            log.info("approved_action_failed", case=case.id, action=action.id, code=refusal.code)
        finally:
            await self._approvals.changed(case.id)
        return False

    async def _decide_again(
        self, case: Case
    ) -> tuple[Action, ToolTarget, Decision, tuple[str, ...], Requirement] | None:
        """The action with today's agent, target and decision; None where people must look at it again."""
        agent = active_or_refuse(self._agent, case.action)
        action = msgspec.structs.replace(case.action, caller=msgspec.structs.replace(case.action.caller, agent=agent))
        target = self._catalog.target(action)
        assert isinstance(target, ToolTarget)
        with self._observe.span("decide", action):
            decision, requirement, why = await ask_again(self._policy, self._approvals, case, action, target)
            self._observe.decided(action, decision)
        if decision.effect is Effect.DENY:
            raise refusal_of(action, decision)
        if target.definition_digest is None and case.definition_digest is not None:  # as after a restart
            raise Refusal(
                "upstream_failed",
                f"What was approved waits: the tool server {target.server} was not reached yet, so it is not known"
                " whether the tool is the one that was approved.",
                detail={"dispatched": "no"},
            )
        inspected = self._guards.inspect_input(action, target)
        if why is not None:
            await self._approvals.requeue(case, target, decision, why=why)
            return None
        if case.requirement.quorum and action.body is not None:
            # What the client attached for the tool (`_meta`) stood on no card, so what people approved goes without it.
            action = msgspec.structs.replace(action, body=None)
        return action, target, decision, inspected, requirement

    async def denied(self, action: Action) -> None:
        """Policy denies what an agent came back for. Where it denies what was approved too, the approval ends there:
        a vote that a rule has overtaken does not wait for the rule to go."""
        case = await self._approvals.open_case(action)
        if case is None or case.kind is not Kind.TOOL_CALL or case.state is not State.APPROVED:
            return
        try:
            await self._decide_again(case)
        except Refusal as refusal:
            await self._blocked(case, refusal)

    async def _blocked(self, case: Case, refusal: Refusal) -> None:
        """Something stands against an approved action: it ends here, unless it is only a fault that passes."""
        if refusal.http_status >= 500:
            log.error("approved_action_waits", case=case.id, code=refusal.code, message=refusal.message)
            return
        try:
            await self._approvals.invalidate(case, code=refusal.code, why=refusal.message, rules=refusal.rules)
        except Refusal as late:  # it ended otherwise in the meantime
            log.info("case_not_invalidated", case=case.id, code=late.code)

    async def ended(
        self,
        running: Running,
        target: Target,
        decision: Decision,
        result: Result,
        refusal: Refusal | None,
        headers: dict[str, str],
        settle: Persist,
    ) -> None:
        """Record the result of an attempt and seal its end for replay, in one transaction."""
        assert running.attempt is not None
        case = await self._approvals.case(running.attempt)
        if refusal is not None:
            ending = Ending(code=refusal.code, message=refusal.message, detail=refusal.detail)
        else:
            ending = Ending(body=result.body, headers=headers, code=result.code)
        end = self._approvals.end(case, result.status, ending)

        def both(connection: Any) -> None:
            settle(connection)
            end(connection)

        try:
            await self._audit.ended(running.action, target, decision, result, both, case.id)
        except Refusal as unrecorded:  # the log has latched: the next start ends it as unknown
            log.error("end_not_recorded", case=case.id, message=unrecorded.message)  # noqa: TRY400 - told, not a fault

    async def lost_sight(
        self, action: Action, target: ToolTarget, decision: Decision, result: Result, settle: Persist
    ) -> None:
        """An allowed call may have had its effect, and nobody knows: a case for people to find out, with the result."""
        why = "The tool server did not answer as it should, so it is not known whether it was done."
        lost = self._approvals.lost_sight(action, target, decision, why)
        opened: list[str] = []

        def both(connection: Any) -> str | None:
            settle(connection)
            case_id = lost.insert(connection)
            opened.extend([case_id] if case_id else [])
            return case_id

        try:
            await self._audit.lost(action, target, decision, result, both)
        except Refusal as unrecorded:
            log.error("end_not_recorded", action=action.id, message=unrecorded.message)  # noqa: TRY400 - as above
        for case_id in opened:
            await self._approvals.changed(case_id)
