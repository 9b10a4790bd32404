"""Step 6 of the path: an escalated action meets its case, its caller waits, and what people approve runs once.

Whoever waits only looks on: the approved action runs in a task of the gateway's own, under its own id, after policy
was asked again on current data. Fails closed: what can't be decided again, or begun exactly once, is not performed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from gateway.actions import (
    Action,
    Agent,
    AgentStatus,
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
from gateway.clock import Clock, rfc3339
from gateway.errors import Refusal
from gateway.outcomes import refusal_of
from gateway.proposals import Verdict
from gateway.rooms import Approvals, Audit, Guards, Limits, LooksUp, Persist, Policy
from gateway.running import Running
from gateway.waiting import DECIDED, ENDED, answer_of, waiting_refusal

log = structlog.get_logger("gateway.escalating")

_TRIES = 3
_BEGIN_S = 30.0  # by then what policy allows has begun, or something stands against it
_LONGEST_CALL_S = 4_000.0  # over the longest time-out that a tool's manifest may set
BEAT_S = 10.0  # an open stream is kept open by a comment this often
Perform = Callable[[Running, Target, Decision, Reservation], Awaitable[Reply | None]]
Again = Callable[[Verdict], Awaitable[Verdict]]


class Escalating:
    """Waits for cases, and carries out what was approved. `perform` is the path's steps 9 to 12."""

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
        perform: Perform,
        clock: Clock,
        hold_s: Callable[[], float],
    ) -> None:
        self._approvals = approvals
        self._catalog = catalog
        self._limits = limits
        self._guards = guards
        self._policy = policy
        self._audit = audit
        self._agent = agent
        self._perform = perform
        self._clock = clock
        self._hold_s = hold_s
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    # ------------------------------------------------------------ a caller waits

    async def wait(self, running: Running, target: ToolTarget, decision: Decision) -> Reply | None:
        """Hold the caller until its case has ended; the stored answer. None: there is no case, and nobody to ask.

        Raises the refusal that the case ended with, or `approval_required` once the hold is over.
        """
        action = running.action
        met = await self._approvals.meet(action, target, decision)
        if met is None:
            return None
        case = met.case
        running.recorded = case.action.id == action.id
        running.wait_for(case.id, people=case.state is State.PENDING)
        # What policy allows takes as long as its tool does; only for people is a caller told to come back.
        patient = decision.effect is Effect.ALLOW and case.state is not State.PENDING
        until_s = self._until_s(running)
        if patient:
            until_s = max(until_s, self._clock.monotonic_s() + _BEGIN_S)
        case = await self._until_ended(action, case, until_s, patient=patient)
        if case.state not in ENDED:
            raise waiting_refusal(case)
        running.replayed = met.ended_before
        reply = answer_of(case, await self._approvals.ending(case))
        if not running.recorded:
            await self._audit.decided([(action, target, decision)], case=case.id, replayed=True)
            running.recorded = True
        return reply

    async def _until_ended(self, action: Action, case: Case, until_s: float, *, patient: bool = False) -> Case:
        """The case when it has ended, or when time is up. An approved one is carried out: whoever asks claims it.

        `patient`: time is not up while its tool is at work.

        Raises what an attempt failed with that certainly did nothing: then asking again is another attempt.
        """
        fence = case.fence
        while case.state not in ENDED:
            if case.state is not State.EXECUTING and (now := await self._unless_suspended(action, case)) is not case:
                case = now
                continue
            if case.state is State.APPROVED and case.fence > fence:
                answer_of(case, await self._approvals.ending(case))
            elif case.state is State.APPROVED:
                self.carry_out(case)
            left_s = until_s - self._clock.monotonic_s()
            if patient and case.state is State.EXECUTING:
                left_s = _LONGEST_CALL_S
            if left_s <= 0:
                break
            case = await self._approvals.wait(case.id, left_s, until=frozenset(State) - {case.state})
        return case

    async def _unless_suspended(self, action: Action, case: Case) -> Case:
        """Raises `agent_suspended`; but what had begun before that is told to its end, since it is done."""
        try:
            self._check_agent(action)
        except Refusal:
            case = await self._approvals.case(case.id)
            if case.state in (State.PENDING, State.APPROVED):
                raise
        return case

    async def hold(self, running: Running, verdicts: Sequence[Verdict], again: Again) -> list[Verdict]:
        """Hold a model's answer until people have decided on all that it proposes; then each is judged anew.

        Proposals that nobody decided in time still wait. Nothing of an answer that can't leave yet is released.
        """
        held = list(verdicts)
        while any(verdict.waiting for verdict in held):
            decided = await self._all_decided(running, held)
            if not decided and not running.opened:
                break
            held = [await again(verdict) for verdict in held]
            if not decided:
                break
        return held

    async def _all_decided(self, running: Running, verdicts: Sequence[Verdict]) -> bool:
        """Wait for people; False once time is up, or the gateway stops and the stream needs its well-formed end."""
        for verdict in verdicts:
            while verdict.waiting:
                assert verdict.case is not None
                running.wait_for(verdict.case)
                self._check_agent(running.action)
                left_s = max(0.0, self._until_s(running) - self._clock.monotonic_s())
                beat_s = min(left_s, BEAT_S) if running.opened else left_s
                try:
                    case = await self._approvals.wait(verdict.case, beat_s, until=DECIDED)
                except Refusal:
                    if running.opened:
                        return False
                    raise
                if case.state is not State.PENDING:
                    break
                if not left_s:
                    return False
                if running.opened:
                    await running.send(b": waiting for approval\n\n")
        self._check_agent(running.action)
        return True

    def _until_s(self, running: Running) -> float:
        """Until when its caller is held: once for all that it waits for."""
        if running.until_s is None:
            hold_s = self._hold_s() if running.hold_s is None else running.hold_s
            running.until_s = self._clock.monotonic_s() + hold_s
        return running.until_s

    def _check_agent(self, action: Action) -> Agent:
        agent = self._agent(action.caller.agent.id)
        if agent is None or agent.status is not AgentStatus.ACTIVE:
            raise Refusal(
                "agent_suspended",
                f"The agent {action.caller.agent.id} is suspended; ask its operator to resume it.",
            )
        return agent

    # ------------------------------------------------------------ what was approved runs

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
        """End the waiting; let attempts finish for `grace_s`, then end them: their outcome is unknown."""
        self._stopping = True
        self._approvals.stop_waiting()
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
            if case.state is not State.APPROVED or not await self._try(case):
                return

    async def _try(self, case: Case) -> bool:
        """One attempt; True where the ground moved under it before anything was sent: then it is decided anew."""
        try:
            prepared = await self._decide_again(case)
            if prepared is None:
                return False
            action, target, decision, inspected, requirement = prepared
            held = self._limits.reserve(action, target)
        except Refusal as refusal:
            await self._blocked(case, refusal)
            return False
        running = Running(action, None)
        running.attempt, running.decision, running.recorded = case.id, decision, True
        begin = self._approvals.begin(case, requirement)
        try:
            await self._audit.intent(action, target, decision, held, inspected, also=begin, case=case.id)
        except BaseException as fault:
            self._limits.settle(held, Cost())
            if not isinstance(fault, Refusal):
                raise
            if fault.code == "decided":  # somebody was first: another attempt, a vote that counts no more, the clock
                return True
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
        agent = self._check_agent(case.action)
        action = msgspec.structs.replace(case.action, caller=msgspec.structs.replace(case.action.caller, agent=agent))
        target = self._catalog.target(action)
        assert isinstance(target, ToolTarget)
        votes = await self._approvals.votes(case.id)
        decision = await self._policy.decide(action, target, approval=self._approvals.in_force(case, votes))
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
        alone = decision.effect is Effect.ALLOW and not case.requirement.quorum  # nobody was asked, nor need be
        why = None if alone else self._approvals.falls_short(case, votes, target, decision)
        if why is not None:
            await self._approvals.requeue(case, target, decision, why=why)
            return None
        asked = self._approvals.requirement(decision) if decision.effect is Effect.ESCALATE else Requirement(quorum=())
        return action, target, decision, inspected, asked

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

    # ------------------------------------------------------------ an agent asks about its own

    async def status(self, action: Action, case_id: str, wait_s: float) -> dict[str, Any]:
        """How a case of the asking agent stands, after at most `wait_s` seconds. Raises `not_found`."""
        case = await self._own(action, case_id)
        until_s = self._clock.monotonic_s() + wait_s
        if case.kind is Kind.TOOL_CALL:
            return await self.told(await self._until_ended(action, case, until_s))
        if case.state is State.PENDING:
            case = await self._approvals.wait(case_id, wait_s, until=DECIDED)
        return await self.told(case)

    async def told(self, case: Case) -> dict[str, Any]:
        """A case as its agent is told of it."""
        told: dict[str, Any] = {
            "case_id": case.id,
            "state": case.state.value,
            "guidance": "",
            "expires_at": rfc3339(case.expires_ns),
        }
        if case.state in (State.PENDING, State.APPROVED, State.EXECUTING):
            told["guidance"] = waiting_refusal(case).message
            return told
        try:
            told["result"] = answer_of(case, await self._approvals.ending(case)).body
        except Refusal as refusal:
            told["guidance"] = refusal.message
        return told

    async def cancel(self, action: Action, case_id: str) -> dict[str, Any]:
        """The agent does not want it any more. Raises `not_found`, and `decided` where it is too late."""
        case = await self._own(action, case_id)
        agent_id = action.caller.agent.id
        return await self.told(
            await self._approvals.cancel(case.id, by=agent_id, why="The agent took it back.", person=False)
        )

    async def _own(self, action: Action, case_id: str) -> Case:
        case = await self._approvals.case(case_id)
        caller, asked = action.caller, case.action.caller
        if (caller.agent.tenant, caller.agent.id, caller.user) != (asked.agent.tenant, asked.agent.id, asked.user):
            raise Refusal("not_found", "You have no case of this id; it stands in the answer that told you to wait.")
        return case
