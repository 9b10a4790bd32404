"""Step 10 of the path for models: what an answer proposes is judged before the agent has it.

An answer whose proposals wait for people is kept whole, so that the retry of the identical request is given it and
nobody pays twice. Fails closed: what can't be read, judged or kept is withheld.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from gateway.actions import (
    Action,
    Cost,
    Decision,
    Kind,
    ModelTarget,
    Reply,
    ReplyStream,
    Reservation,
    Result,
    Status,
    Target,
)
from gateway.approvals.case import KeptAnswer
from gateway.errors import Refusal
from gateway.escalating import BEAT_S, Escalating
from gateway.judging import Judging
from gateway.offload import run_sized
from gateway.outcomes import cost_of_stream
from gateway.proposals import Proposal, Verdict
from gateway.rooms import Approvals, Audit, Dialect
from gateway.running import Kept, Running
from gateway.taping import KeptStream, Tape, check_size

FIRST_SILENCE_S = 15.0
"""How long a provider may take for an answer without a byte for the client, before the head goes out."""


class Answering:
    """Inspects complete answers, relays streams, and gives kept answers again."""

    def __init__(
        self,
        *,
        dialects: dict[str, Dialect],
        judging: Judging,
        escalating: Escalating,
        approvals: Approvals,
        audit: Audit,
    ) -> None:
        self._dialects = dialects
        self._judging = judging
        self._escalating = escalating
        self._approvals = approvals
        self._audit = audit

    async def inspect(self, running: Running, target: Target, reply: Reply) -> Reply:
        """Judge what a complete answer proposes. Raises `approval_required`; then the answer is kept for the retry."""
        action = running.action
        if not isinstance(target, ModelTarget):
            return reply
        dialect = self._dialects[action.door]
        size = len(reply.body)
        body, proposals = await run_sized(size, dialect.proposals, reply.body, action.body)
        if proposals:
            verdicts = await self._judge(running, proposals, lambda: _whole(reply))
            if running.withheld is not None:
                raise running.withheld
            body = await run_sized(size, dialect.release, body, verdicts)
        return Reply(status=reply.status, body=body, headers=reply.headers)

    async def _judge(self, running: Running, proposals: list[Proposal], whole: Callable[[], bytes]) -> list[Verdict]:
        """Judge proposals; where people must decide, keep the `whole` answer (paid for once) and hold it."""
        action = running.action
        answer_id = running.answer_id or action.id
        verdicts = await self._judging.judge(action, proposals, answer_id, running.asked)
        if not any(verdict.waiting for verdict in verdicts):
            return verdicts
        if running.answer_id is None:
            running.answer_id = answer_id
            body = whole()
            dialect = self._dialects[action.door]
            body = await run_sized(len(body), dialect.without_secrets, body, stream=action.stream)
            await self._approvals.keep_answer(action, answer_id, body, stream=action.stream)
            running.is_whole = True
        if running.withheld is None:

            async def again(one: Verdict) -> Verdict:
                return await self._judging.again(one, answer_id, running.asked)

            verdicts = await self._escalating.hold(running, verdicts, again)
        waiting = [verdict for verdict in verdicts if verdict.waiting]
        if waiting:
            refusal = await self._judging.still_waiting(waiting)
            if not running.opened:
                running.withheld = running.withheld or refusal
        return verdicts

    async def kept(self, action: Action) -> KeptAnswer | None:
        if action.kind is not Kind.MODEL_INVOKE or not self._approvals.has_answer(action.digest):
            return None
        return await self._approvals.kept_answer(action)

    async def give_kept(self, running: Running, target: Target, decision: Decision, kept: KeptAnswer) -> Reply | None:
        """The same request again, whose answer was paid for and waits for people: judge what it proposes anew."""
        action = running.action
        await self._audit.decided([(action, target, decision)], replayed=True)
        running.recorded = running.replayed = True
        running.answer_id = kept.id
        try:
            if not kept.stream:
                return await self.inspect(running, target, Reply(body=kept.body))
            await self.relay(running, target, KeptStream(kept.body), None)
            if running.withheld is not None:
                raise running.withheld
        except Refusal as refusal:
            running.replayed = False  # it was not given
            running.recorded = refusal.code == "approval_required"  # its proposals' own records tell that they wait
            raise
        return None

    @contextlib.asynccontextmanager
    async def awaiting(self, running: Running, target: Target) -> AsyncIterator[None]:
        """While a provider is asked for a stream: what keeps the line open where its answer does not begin for long.

        Its refusal then comes in the stream, since the head is out.
        """
        if not running.action.stream or not isinstance(target, ModelTarget):
            yield
            return
        running.begin(200, {})
        async with _kept_alive(running, lambda: True):
            yield

    async def relay(self, running: Running, target: Target, stream: ReplyStream, held: Reservation | None) -> Result:
        """Pass a stream on while somebody listens; then read on or stop paying, as the provider allows.

        `held` is None for a kept answer, which is not paid for again.
        """
        action = running.action
        tape = Tape(stream)
        inspected = self._dialects[action.door].stream(action, lambda found: self._judge(running, found, tape.whole))
        sent = Kept()
        status, failure = Status.SUCCEEDED, None
        try:
            running.begin(stream.status, stream.headers)
            async with _kept_alive(running, lambda: inspected.holding):
                async for chunk in inspected.run(aiter(tape)):
                    sent.add(chunk)
                    await running.send(chunk)
            if running.withheld is None:
                await running.open()
        except Refusal as refusal:
            status, failure = Status.FAILED, refusal
        except asyncio.CancelledError:
            if running.interrupted is None:
                raise
            status, failure = Status.CANCELLED, running.interrupted
        finally:
            running.close()
            await stream.aclose()
        if failure is not None and running.opened:
            await running.fail(failure)
        elif failure is not None:
            running.withheld = failure
        code = failure.code if failure else running.withheld.code if running.withheld else None
        return Result(
            status=status,
            code=code or ("client_left" if running.left else None),
            cost=Cost() if held is None else cost_of_stream(target, inspected.usage, held),
            body=sent.body,
            unkept_bytes=sent.unkept_bytes,
        )


def _whole(reply: Reply) -> bytes:
    check_size(len(reply.body))
    return reply.body


@contextlib.asynccontextmanager
async def _kept_alive(running: Running, holding: Callable[[], bool]) -> AsyncIterator[None]:
    """Send comments while an answer still arrives and nothing of it can be sent, so that no balancer cuts the line.

    Before the first byte, silence may last for FIRST_SILENCE_S: until then the answer can be refused as a whole. A hold
    for a person is not this one's concern: then all of the answer is here.
    """
    beats = asyncio.ensure_future(_beat(running, holding))
    try:
        yield
    finally:
        beats.cancel()
        await asyncio.wait({beats})


async def _beat(running: Running, holding: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        patience_s = BEAT_S if running.opened else FIRST_SILENCE_S
        quiet_s = loop.time() - running.sent_s
        if quiet_s < patience_s:
            await asyncio.sleep(patience_s - quiet_s)
        elif holding():
            await running.send(b": the answer is arriving\n\n")
        else:
            await asyncio.sleep(patience_s)
