"""Step 6 of the path: an escalated action meets its case, and its caller waits.

Whoever waits only looks on: what people approve runs in a task of the gateway's own (`attempting.py`). A caller who is
told to come back, or hangs up, changes nothing about its case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from gateway.actions import (
    Action,
    Agent,
    Decision,
    Effect,
    Kind,
    Reply,
    Reservation,
    Target,
    ToolTarget,
)
from gateway.approvals.case import Case, State
from gateway.clock import Clock, rfc3339
from gateway.errors import Refusal
from gateway.outcomes import active_or_refuse
from gateway.proposals import Verdict
from gateway.rooms import Approvals, Audit, Observes
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
    """Waits for cases. `carry_out` begins what was approved, for a caller who came to claim it."""

    def __init__(
        self,
        *,
        approvals: Approvals,
        audit: Audit,
        agent: Callable[[str], Agent | None],
        carry_out: Callable[[Case], None],
        observe: Observes,
        clock: Clock,
        hold_s: Callable[[], float],
    ) -> None:
        self._approvals = approvals
        self._audit = audit
        self._agent = agent
        self._carry_out = carry_out
        self._observe = observe
        self._clock = clock
        self._hold_s = hold_s

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
        with self._observe.waits(action, case.id, case.action.trace) as waits:
            case = await self._until_ended(action, case, until_s, patient=patient)
            waits.came_to(case.state.value)
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
                self._carry_out(case)
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
            active_or_refuse(self._agent, action)
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
            if verdict.waiting:
                assert verdict.case is not None
                with self._observe.waits(running.action, verdict.case, running.action.trace) as waits:
                    state = await self._decided(running, verdict.case)
                    waits.came_to(state.value)
                if state is State.PENDING:
                    return False
        active_or_refuse(self._agent, running.action)
        return True

    async def _decided(self, running: Running, case_id: str) -> State:
        """The state of a case once people have decided; pending where nobody did in time."""
        running.wait_for(case_id)
        while True:
            active_or_refuse(self._agent, running.action)
            left_s = max(0.0, self._until_s(running) - self._clock.monotonic_s())
            beat_s = min(left_s, BEAT_S) if running.opened else left_s
            try:
                case = await self._approvals.wait(case_id, beat_s, until=DECIDED)
            except Refusal:
                if running.opened:
                    return State.PENDING
                raise
            if case.state is not State.PENDING or not left_s:
                return case.state
            if running.opened:
                await running.send(b": waiting for approval\n\n")

    def _until_s(self, running: Running) -> float:
        """Until when its caller is held: once for all that it waits for."""
        if running.until_s is None:
            hold_s = self._hold_s() if running.hold_s is None else running.hold_s
            running.until_s = self._clock.monotonic_s() + hold_s
        return running.until_s

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
        none = Refusal("not_found", "You have no case of this id; it stands in the answer that told you to wait.")
        try:
            case = await self._approvals.case(case_id)
        except Refusal as refusal:
            raise (none if refusal.code == "not_found" else refusal) from None  # in the words for somebody else's
        caller, asked = action.caller, case.action.caller
        if (caller.agent.tenant, caller.agent.id, caller.user) != (asked.agent.tenant, asked.agent.id, asked.user):
            raise none
        return case
