"""The path every action takes, on one page.

A door parses its protocol into an `Action`; `Governor.start` runs it here in a task of the gateway's own, so that
an action outlives the connection that brought it. The steps bear the numbers of the design; admitting comes before
the look-up and deciding before the guards, so that nobody learns of a tool that policy hides (docs/decisions/0009).
What waits for a person ends here with its case (`escalating.py`); once approved, it comes back in at step 5 by its own
task (`attempting.py`) and goes on through 7 to 12 like any other.
Whatever refuses before the intent is recorded leaves one refusal record; whatever happens after it leaves exactly one
result.

Fails closed: a refusal, a fault or a stop at any step before `perform` means that nothing was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from gateway.actions import (
    Action,
    Agent,
    Caller,
    Cost,
    Decision,
    Effect,
    Kind,
    ModelTarget,
    Reply,
    Reservation,
    Result,
    Status,
    Target,
    ToolTarget,
)
from gateway.answering import Answering
from gateway.attempting import Attempting
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.escalating import Escalating
from gateway.joining import Joining
from gateway.judging import Judging
from gateway.outcomes import (
    active_or_refuse,
    allow_or_refuse,
    cost_of_reply,
    needs_finding_out,
    result_of_failure,
    status_of,
    upper_bound,
    worth_a_record,
)
from gateway.own_case import OWN_CASE
from gateway.rooms import Approvals, Audit, Dialect, Guards, Limits, LooksUp, Observes, Policy, Upstreams
from gateway.running import Running, Sink

log = structlog.get_logger("gateway.govern")


class Governor:
    """Runs actions along the path and knows which are running."""

    def __init__(
        self,
        *,
        catalog: LooksUp,
        limits: Limits,
        guards: Guards,
        policy: Policy,
        approvals: Approvals,
        audit: Audit,
        upstreams: Upstreams,
        dialects: dict[str, Dialect],
        agent: Callable[[str], Agent | None],
        observe: Observes,
        clock: Clock,
        new_id: Callable[[], str],
        digest: Callable[[Action], str],
        hold_s: Callable[[], float],
        saw: Callable[[Action], None],
    ) -> None:
        self._catalog = catalog
        self._limits = limits
        self._guards = guards
        self._policy = policy
        self._approvals = approvals
        self._audit = audit
        self._upstreams = upstreams
        self._dialects = dialects
        self._agent = agent
        self._observe = observe
        self._clock = clock
        self._saw = saw
        judging = Judging(
            catalog=catalog,
            guards=guards,
            policy=policy,
            approvals=approvals,
            audit=audit,
            refused=self._refused,
            observe=observe,
            clock=clock,
            new_id=new_id,
            digest=digest,
        )
        self.attempting = Attempting(
            approvals=approvals,
            catalog=catalog,
            limits=limits,
            guards=guards,
            policy=policy,
            audit=audit,
            agent=agent,
            observe=observe,
            perform=self._carry_out,
        )
        self.escalating = Escalating(
            approvals=approvals,
            audit=audit,
            agent=agent,
            carry_out=self.attempting.carry_out,
            observe=observe,
            clock=clock,
            hold_s=hold_s,
        )
        self._answering = Answering(
            dialects=dialects, judging=judging, escalating=self.escalating, approvals=approvals, audit=audit
        )
        self._running: set[Running] = set()
        self._joining = Joining(audit)
        self._stopping = False

    def start(self, action: Action, sink: Sink | None = None, *, hold_s: float | None = None) -> Running:
        """Begin an action. Its answer comes from `Running.reply`, or flows into `sink` where it streams.

        `hold_s`: how long the caller is held where a person must decide; None: as configured.
        """
        running = Running(action, sink, hold_s)
        self._running.add(running)
        running.task = asyncio.get_running_loop().create_task(self._govern(running))
        running.task.add_done_callback(lambda _: self._over(running))
        return running

    def _over(self, running: Running) -> None:
        self._running.discard(running)
        self._joining.over(running)

    @property
    def open_streams(self) -> int:
        """Streams that are being relayed now. Safe from any thread."""
        return sum(running.relaying for running in tuple(self._running))

    async def _govern(self, running: Running) -> Reply | None:
        action = running.action
        target: Target | None = None
        try:
            with self._observe.span("action", action):
                self._admit_agent(action)
                # 3 admit; first, so that probing names is limited too
                with await self._limits.admit(action) as admitted:
                    running.place = admitted
                    target = self._catalog.target(action)  # 2 look up
                    with self._observe.span("decide", action):
                        decision = await self._policy.decide(action, target)  # 5 decide
                        self._observe.decided(action, decision)
                    running.decision = decision
                    # 4 inspect; last, and not what is hidden: neither a fault nor the time may tell that it exists
                    inspected = () if decision.hidden else self._guards.inspect_input(action, target)
                    reply = await self._joining.reply(running, target, decision)  # the identical call is in flight
                    reply = reply or await self._meet_case(running, target, decision)  # 6 escalate
                    if reply is not None:
                        return reply
                    allow_or_refuse(action, decision)
                    if action.kind is Kind.MODEL_INVOKE:
                        self._saw(action)  # which tools of its own the agent declares
                    if (kept := await self._answering.kept(action)) is not None:
                        return await self._answering.give_kept(running, target, decision, kept)
                    held = await self._limits.reserve(action, target)  # 7 reserve
                    running.rates = admitted.rates()
                    while (first := await self._record_intent(running, target, decision, held, inspected)) is not None:
                        # The identical call is in flight on another replica, or people find out about it.
                        reply = await self._joining.elsewhere(running, target, decision, first)
                        if reply is None and isinstance(target, ToolTarget):  # perhaps nobody knows how it ended
                            reply = await self.escalating.wait(running, target, decision)
                        if reply is not None:
                            return reply
                        held = await self._limits.reserve(action, target)
                    return await self._carry_out(running, target, decision, held)  # 9-12
        except Refusal as refusal:
            if not running.recorded:
                self._refused(action, target, running.decision, refusal)
            raise
        except asyncio.CancelledError:
            if running.left and not running.recorded:
                gone = Refusal(
                    "client_left",
                    "The client left while it waited for a person; its case stays.",
                    detail={} if running.case is None else {"case": running.case},
                )
                self._refused(action, target, running.decision, gone)
            raise
        except Exception as error:  # a fault of ours: recorded and told without its text, which stands in the log
            log.exception("action_fault", action=action.id, request_id=action.request_id)
            internal = Refusal("internal", f"The gateway failed; its log has the request id {action.request_id}.")
            if not running.recorded:
                self._refused(action, target, running.decision, internal)
            raise internal from error

    async def _record_intent(
        self,
        running: Running,
        target: Target,
        decision: Decision,
        held: Reservation,
        inspected: tuple[str, ...],
    ) -> str | None:
        """8 record: the intent is durable when this returns None; if it can't be, what was reserved is given back.

        Else the identical call that another replica carries out, '' where that has ended in a case that is open; then
        this one is not recorded.
        """
        action = running.action
        try:
            with self._observe.span("intent", action):
                await self._audit.intent(action, target, decision, held, inspected)
        except BaseException as error:
            self._limits.settle(held, Cost())
            if isinstance(error, Refusal) and "in_flight" in error.detail:
                if "case" in error.detail:  # made by another replica a moment ago
                    await self._approvals.noticed(error.detail["case"])
                return error.detail["in_flight"]
            raise
        running.recorded = True
        return None

    async def _meet_case(self, running: Running, target: Target, decision: Decision) -> Reply | None:
        """Step 6: what is escalated waits for people, what has an idempotency key is kept for its retries; an identical
        call meets the case that there is."""
        action = running.action
        if action.kind is not Kind.TOOL_CALL or not isinstance(target, ToolTarget):
            return None
        if decision.effect is Effect.DENY:
            if self._approvals.concerns(action):
                await self.attempting.denied(action)
            return None
        keyed = action.idempotency_key is not None
        if decision.effect is Effect.ESCALATE or keyed or self._approvals.concerns(action):
            return await self.escalating.wait(running, target, decision)
        return None

    async def _carry_out(self, running: Running, target: Target, decision: Decision, held: Reservation) -> Reply | None:
        """Perform, inspect, settle, record: whatever happens in here, exactly one result is recorded."""
        action = running.action
        started_s = self._clock.monotonic_s()
        # What is recorded if something unforeseen happens: it may have been done, and may have cost all of it.
        result = Result(status=Status.UNKNOWN, code="internal", cost=upper_bound(held))
        refused: Refusal | None = None
        headers: dict[str, str] = {}
        call = self._observe.call(action, target, self._dialects.get(action.door))
        try:
            body = None
            if isinstance(target, ModelTarget):
                body = self._dialects[action.door].outbound(action, target)
                running.perform(self._upstreams.drain_s(target))
            approved = running.attempt is not None
            with call:
                async with self._answering.awaiting(running, target):
                    answer = await self._upstreams.perform(  # 9 perform
                        action, target, body, call.traceparent, approved=approved
                    )
            answer = call.answer(answer)
            if isinstance(answer, Reply):
                running.close()
                cost = cost_of_reply(target, answer, held)
                result = Result(status=status_of(answer), cost=cost, body=answer.body)
                headers = answer.headers
                return await self._answering.inspect(running, target, answer)  # 10 inspect
            result = await self._answering.relay(running, target, answer, held)  # 10 inspect, event by event
            if running.withheld is not None:
                raise running.withheld
            return None
        except Refusal as refusal:
            refused = refusal
            result = result_of_failure(target, refusal, held, result)
            if needs_finding_out(target, result):
                refusal.detail["outcome"] = "unknown"
            raise
        except asyncio.CancelledError:
            cancelled = Status.CANCELLED if isinstance(target, ModelTarget) else Status.UNKNOWN
            ended = running.interrupted
            refused = ended or Refusal("stopping", "The gateway was stopped before the answer was there.")
            result = Result(status=cancelled, code=ended.code if ended else "stopping", cost=upper_bound(held))
            if ended is not None:
                raise ended from None
            raise
        finally:
            took_us = int((self._clock.monotonic_s() - started_s) * 1_000_000)
            result = Result(
                status=result.status,
                code=result.code,
                latency_us=took_us,
                cost=result.cost,
                body=result.body,
                unkept_bytes=result.unkept_bytes,
            )
            persist = self._limits.settle(held, result.cost)  # 11 settle
            if running.attempt is not None:
                await self.attempting.ended(running, target, decision, result, refused, headers, persist)
            elif isinstance(target, ToolTarget) and needs_finding_out(target, result):
                await self.attempting.lost_sight(action, target, decision, result, persist)
            else:
                self._audit.result(action, target, decision, result, persist)  # 12 record
            call.ended(result)
            self._observe.ended(action, result.status, decision, result)

    # ------------------------------------------------------------ what an agent may see

    async def list_tools(self, action: Action) -> tuple[ToolTarget, ...]:
        """The tools of `action.target` (a server, or `*`) that the agent may see; one decision each, recorded."""
        try:
            with self._observe.span("action", action):
                self._admit_agent(action)
                with await self._limits.admit(action):
                    server = None if action.target == "*" else action.target
                    decided = [(tool, await self._policy.decide(action, tool)) for tool in self._catalog.tools(server)]
                    self._audit.listed(action, decided)
                    return tuple(tool for tool, decision in decided if decision.effect is not Effect.DENY)
        except Refusal as refusal:
            self._refused(action, None, None, refusal)
            raise

    async def list_models(self, action: Action) -> tuple[ModelTarget, ...]:
        """The models that the agent may invoke; one decision each, recorded."""
        try:
            self._admit_agent(action)
            with await self._limits.admit(action):
                decided = [(model, await self._policy.decide(action, model)) for model in self._catalog.models()]
                self._audit.listed(action, decided)
                return tuple(model for model, decision in decided if decision.effect is not Effect.DENY)
        except Refusal as refusal:
            self._refused(action, None, None, refusal)
            raise

    # ------------------------------------------------------------ an agent asks about its own cases

    async def approval_status(self, action: Action, case_id: str, wait_s: float) -> dict[str, Any]:
        """How a case of the asking agent stands, after at most `wait_s` seconds. Raises `not_found`; recorded."""
        return await self._own_case(action, lambda: self.escalating.status(action, case_id, wait_s))

    async def cancel_case(self, action: Action, case_id: str) -> dict[str, Any]:
        """The asking agent takes its case back. Raises `not_found`, `decided`; recorded."""
        return await self._own_case(action, lambda: self.escalating.cancel(action, case_id))

    async def _own_case(self, action: Action, ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        try:
            self._admit_agent(action)
            with await self._limits.admit(action) as admitted:
                admitted.release()  # it only waits
                told = await ask()
                await self._audit.decided([(action, None, OWN_CASE)], case=told["case_id"])
                return told
        except Refusal as refusal:
            self._refused(action, None, None, refusal)
            raise

    # ------------------------------------------------------------ refusing and stopping

    async def admit(self, action: Action) -> None:
        """Let a message pass that asks for nothing, such as a ping: it counts as a request, and makes no record.

        Raises `agent_suspended`, `rate_limited`; the refusal is recorded.
        """
        try:
            self._admit_agent(action)
            with await self._limits.admit(action):
                pass
        except Refusal as refusal:
            self._refused(action, None, None, refusal)
            raise

    async def refuse(self, action: Action, refusal: Refusal) -> None:
        """Record a refusal that a door made itself, such as a body it could not read; it counts as a request."""
        try:
            with await self._limits.admit(action):
                pass
        except Refusal as limited:
            refusal = limited
        self._refused(action, None, None, refusal)

    def unauthenticated(self) -> None:
        """Count a request of somebody unknown; it makes no record of its own."""
        self._observe.unauthenticated()
        self._audit.unauthenticated()

    def server_known(self, name: str, caller: Caller) -> bool:
        """Whether there is a tool server of that name to ask."""
        return self._catalog.server_known(name)

    def end_streams_of(self, agent_id: str, refusal: Refusal) -> None:
        """End the model calls of an agent, streams and others; the kill switch. Tool calls in flight may finish."""
        self._approvals.wake_agent(agent_id)
        for running in tuple(self._running):
            if running.action.caller.agent.id == agent_id and running.action.kind is Kind.MODEL_INVOKE:
                running.abort(refusal)

    async def stop(self, grace_s: float) -> None:
        """Take no more actions; let the running ones finish for `grace_s`, then end them."""
        self._stopping = True
        self._approvals.stop_waiting()
        await self.attempting.stop(grace_s)
        tasks = [running.task for running in self._running if running.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5)

    def _admit_agent(self, action: Action) -> None:
        if self._stopping:
            raise Refusal("stopping", "The gateway is shutting down; try again in a moment.", retry_after_s=1)
        active_or_refuse(self._agent, action)

    def _refused(self, action: Action, target: Target | None, decision: Decision | None, refusal: Refusal) -> None:
        self._observe.refused(action, refusal)
        if refusal.code == "audit_unavailable":  # the log can take no record; it counts instead
            return
        if worth_a_record(refusal):
            self._audit.refused(action, target, decision, refusal)
