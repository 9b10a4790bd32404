"""The path every action takes, on one page.

A door parses its protocol into an `Action`; `Governor.start` runs it here in a task of the gateway's own, so that
an action outlives the connection that brought it. The steps bear the numbers of the design; admitting comes before
the look-up and deciding before the guards, so that nobody learns of a tool that policy hides (docs/decisions/0009).
Whatever refuses before the intent is recorded leaves one refusal record; whatever happens after it leaves exactly one
result.

Fails closed: a refusal, a fault or a stop at any step before `perform` means that nothing was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from gateway.actions import (
    Action,
    Agent,
    AgentStatus,
    Caller,
    Cost,
    Decision,
    Effect,
    Kind,
    ModelTarget,
    Reply,
    ReplyStream,
    Reservation,
    Result,
    Status,
    Target,
    ToolTarget,
)
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.judging import Judging
from gateway.outcomes import (
    allow_or_refuse,
    cost_of_reply,
    cost_of_stream,
    result_of_failure,
    status_of,
    upper_bound,
    worth_a_record,
)
from gateway.rooms import Audit, Dialect, Guards, Limits, LooksUp, Observes, Policy, Upstreams
from gateway.running import Kept, Running, Sink

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
        audit: Audit,
        upstreams: Upstreams,
        dialects: dict[str, Dialect],
        agent: Callable[[str], Agent | None],
        observe: Observes,
        clock: Clock,
        new_id: Callable[[], str],
        digest: Callable[[Action], str],
    ) -> None:
        self._catalog = catalog
        self._limits = limits
        self._guards = guards
        self._policy = policy
        self._audit = audit
        self._upstreams = upstreams
        self._dialects = dialects
        self._agent = agent
        self._observe = observe
        self._clock = clock
        self._judging = Judging(
            catalog=catalog,
            policy=policy,
            audit=audit,
            refused=self._refused,
            clock=clock,
            new_id=new_id,
            digest=digest,
        )
        self._running: dict[str, Running] = {}
        self._stopping = False

    def start(self, action: Action, sink: Sink | None = None) -> Running:
        """Begin an action. Its answer comes from `Running.reply`, or flows into `sink` where it streams."""
        running = Running(action, sink)
        self._running[action.id] = running
        running.task = asyncio.get_running_loop().create_task(self._govern(running))
        running.task.add_done_callback(lambda _: self._running.pop(action.id, None))
        return running

    @property
    def open_streams(self) -> int:
        """Streams that are being relayed now."""
        return sum(running.relaying for running in self._running.values())

    async def _govern(self, running: Running) -> Reply | None:
        action = running.action
        target: Target | None = None
        try:
            with self._observe.span("action", action):
                self._admit_agent(action)
                with self._limits.admit(action) as admitted:  # 3 admit; first, so that probing names is limited too
                    target = self._catalog.target(action)  # 2 look up
                    with self._observe.span("decide", action):
                        decision = await self._policy.decide(action, target)  # 5 decide
                    running.decision = decision
                    # 4 inspect; last, and not what is hidden: neither a fault nor the time may tell that it exists
                    inspected = () if decision.hidden else self._guards.inspect_input(action, target)
                    allow_or_refuse(action, decision)  # 6 escalate: a refusal, until cases exist
                    held = self._limits.reserve(action, target)  # 7 reserve
                    running.rates = admitted.rates()
                    await self._record_intent(action, target, decision, held, inspected)  # 8 record
                    return await self._carry_out(running, target, decision, held)  # 9-12
        except Refusal as refusal:
            if not running.intent_recorded:
                self._refused(action, target, running.decision, refusal)
            raise
        except Exception as error:  # a fault of ours: recorded and told without its text, which stands in the log
            log.exception("action_fault", action=action.id, request_id=action.request_id)
            internal = Refusal("internal", f"The gateway failed; its log has the request id {action.request_id}.")
            if not running.intent_recorded:
                self._refused(action, target, running.decision, internal)
            raise internal from error

    async def _record_intent(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        held: Reservation,
        inspected: tuple[str, ...],
    ) -> None:
        """The intent is durable when this returns; if it can't be, what was reserved is given back."""
        try:
            with self._observe.span("intent", action):
                await self._audit.intent(action, target, decision, held, inspected)
        except BaseException:
            self._limits.settle(held, Cost())
            raise
        self._running[action.id].intent_recorded = True

    async def _carry_out(self, running: Running, target: Target, decision: Decision, held: Reservation) -> Reply | None:
        """Perform, inspect, settle, record: whatever happens in here, exactly one result is recorded."""
        action = running.action
        started_s = self._clock.monotonic_s()
        # What is recorded if something unforeseen happens: it may have been done, and may have cost all of it.
        result = Result(status=Status.UNKNOWN, code="internal", cost=upper_bound(held))
        try:
            body = None
            if isinstance(target, ModelTarget):
                body = self._dialects[action.door].outbound(action, target)
                running.perform(self._upstreams.drain_s(target))
            with self._observe.span("perform", action):
                answer = await self._upstreams.perform(action, target, body)  # 9 perform
            if isinstance(answer, Reply):
                running.close()
                cost = cost_of_reply(target, answer, held)
                result = Result(status=status_of(answer), cost=cost, body=answer.body)
                return await self._inspect_reply(action, target, answer)  # 10 inspect
            result = await self._relay(running, target, answer, held)  # 10 inspect, event by event
            return None
        except Refusal as refusal:
            result = result_of_failure(target, refusal, held, result)
            raise
        except asyncio.CancelledError:
            cancelled = Status.CANCELLED if isinstance(target, ModelTarget) else Status.UNKNOWN
            ended = running.interrupted
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
            self._audit.result(action, target, decision, result, persist)  # 12 record
            self._observe.ended(action, result.status, decision, result)

    # ------------------------------------------------------------ step 10: what a model proposes

    async def _inspect_reply(self, action: Action, target: Target, reply: Reply) -> Reply:
        if not isinstance(target, ModelTarget):
            return reply
        dialect = self._dialects[action.door]
        body, proposals = dialect.proposals(reply.body, action.body)
        if proposals:
            body = dialect.release(body, await self._judging.judge(action, proposals))
        return Reply(status=reply.status, body=body, headers=reply.headers)

    async def _relay(self, running: Running, target: Target, stream: ReplyStream, held: Reservation) -> Result:
        """Pass a stream on while somebody listens; then read on or stop paying, as the provider allows."""
        action = running.action
        inspected = self._dialects[action.door].stream(action, lambda found: self._judging.judge(action, found))
        kept = Kept()
        status, failure = Status.SUCCEEDED, None
        try:
            await running.open(stream.status, stream.headers)
            async for chunk in inspected.run(aiter(stream)):
                kept.add(chunk)
                await running.send(chunk)
        except Refusal as refusal:
            status, failure = Status.FAILED, refusal
        except asyncio.CancelledError:
            if running.interrupted is None:
                raise
            status, failure = Status.CANCELLED, running.interrupted
        finally:
            running.close()
            await stream.aclose()
        if failure is not None:
            await running.fail(failure)
        return Result(
            status=status,
            code=failure.code if failure else "client_left" if running.left else None,
            cost=cost_of_stream(target, inspected.usage, held),
            body=kept.body,
            unkept_bytes=kept.unkept_bytes,
        )

    # ------------------------------------------------------------ what an agent may see

    async def list_tools(self, action: Action) -> tuple[ToolTarget, ...]:
        """The tools of `action.target` (a server, or `*`) that the agent may see; one decision each, recorded."""
        try:
            self._admit_agent(action)
            with self._limits.admit(action):
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
            with self._limits.admit(action):
                decided = [(model, await self._policy.decide(action, model)) for model in self._catalog.models()]
                self._audit.listed(action, decided)
                return tuple(model for model, decision in decided if decision.effect is not Effect.DENY)
        except Refusal as refusal:
            self._refused(action, None, None, refusal)
            raise

    # ------------------------------------------------------------ refusing and stopping

    def refuse(self, action: Action, refusal: Refusal) -> None:
        """Record a refusal that a door made itself, such as a body it could not read; it counts as a request."""
        try:
            with self._limits.admit(action):
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
        for running in tuple(self._running.values()):
            if running.action.caller.agent.id == agent_id and running.action.kind is Kind.MODEL_INVOKE:
                running.abort(refusal)

    async def stop(self, grace_s: float) -> None:
        """Take no more actions; let the running ones finish for `grace_s`, then end them."""
        self._stopping = True
        tasks = [running.task for running in self._running.values() if running.task is not None]
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
        agent = self._agent(action.caller.agent.id)
        if agent is None or agent.status is not AgentStatus.ACTIVE:
            raise Refusal(
                "agent_suspended",
                f"The agent {action.caller.agent.id} is suspended; ask its operator to resume it.",
            )

    def _refused(self, action: Action, target: Target | None, decision: Decision | None, refusal: Refusal) -> None:
        self._observe.refused(action, refusal)
        if refusal.code == "audit_unavailable":  # the log can take no record; it counts instead
            return
        if worth_a_record(refusal):
            self._audit.refused(action, target, decision, refusal)
