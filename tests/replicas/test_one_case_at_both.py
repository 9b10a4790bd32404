"""A case has one end, whichever replicas people and agents come to; and both replicas tell the same of it."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from typing import Any

import httpx
import pytest

from gateway.approvals.case import Case, Choice, State
from gateway.errors import Refusal
from tests.bank_house import Bank
from tests.invariants.counter import Counter, is_paid
from tests.replicas.house import Pair, code_of, configure, deafen, pay, until, vote

HOLD_S = 60.0  # far longer than anything takes here: who is held is answered for a reason
STEP_S = 0.0015
TWO = '{"quorum": [{"approve": 2}]}'
DESK = """\
version: 1
server: desk
kind: client
owner: dana
tools:
  transfer: {risk: high, effect: write}
"""
ASKED = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Pay 25 EUR to acme-gmbh"}],
    "tools": [{"type": "function", "function": {"name": "transfer", "parameters": {"type": "object"}}}],
}


async def holding(pair: Pair) -> None:
    """Callers are held from now on, at both."""
    configure(pair.folder, hold_s=HOLD_S)
    await pair.reload()


async def held(bank: Bank, agent: httpx.AsyncClient, reference: str) -> asyncio.Task[dict[str, Any]]:
    """A caller who is held at `bank`."""
    approvals = bank.running.app.approvals
    before = approvals.waiting_callers
    call = asyncio.create_task(pay(bank, agent, reference))

    async def waits() -> bool:
        return approvals.waiting_callers > before

    await until(waits, "a caller who is held")
    return call


async def held_at_both(
    pair: Pair, here: httpx.AsyncClient, there: httpx.AsyncClient, reference: str
) -> tuple[str, list[asyncio.Task[dict[str, Any]]]]:
    """The same call at each, and the one case that both wait for."""
    calls = [await held(pair.one, here, reference), await held(pair.other, there, reference)]
    (case,) = (await pair.other.running.app.approvals.find(status="pending", limit=10)).cases
    return case.id, calls


async def test_of_a_vote_at_one_and_the_agents_cancelling_at_the_other_one_wins(pair: Pair) -> None:
    """Asked of the rooms themselves: through the doors the vote has the shorter way, and would always be first."""
    await holding(pair)
    here, there = await pair.key()
    await pair.reviewer(pair.one, "rita")
    one, other = (bank.running.app.approvals for bank in pair.both)
    for round_ in range(10):
        reference = f"cancel-{round_}"
        case_id, calls = await held_at_both(pair, here, there, reference)
        shown = await one.case(case_id)

        async def cancel(case_id: str = case_id, later_s: float = round_ * STEP_S) -> Case:
            if later_s:  # before the vote, beside it, beside what it lets begin, and after that
                await asyncio.sleep(later_s)
            return await other.cancel(case_id, by="reader", why="Not any more.", person=False)

        voting = one.vote(case_id, "rita", Choice.APPROVE, presented_digest=shown.presented_digest)
        cancelled, voted = await asyncio.gather(cancel(), voting, return_exceptions=True)
        told = await asyncio.gather(*calls)
        (end,) = {(await room.case(case_id)).state for room in (one, other)}
        went = Tally(await Counter(pair.other).went(case_id))
        if end is State.CANCELLED:  # perhaps after it was approved, and before it was begun
            assert not isinstance(cancelled, BaseException)
            assert is_too_late(voted) or went["case.approved"] == 1
            assert [code_of(answer) for answer in told] == ["approval_denied"] * 2
            assert (went["case.cancelled"], went["action.intent"], pair.paid(reference)) == (1, 0, 0)
        else:
            assert end is State.SUCCEEDED
            assert not isinstance(voted, BaseException)
            assert is_too_late(cancelled)
            assert all(map(is_paid, told))
            assert told[0]["result"]["structuredContent"] == told[1]["result"]["structuredContent"]
            assert (went["case.cancelled"], went["action.intent"], pair.paid(reference)) == (0, 1, 1)
    await pair.verified()


def is_too_late(end: Case | BaseException) -> bool:
    return isinstance(end, Refusal) and end.code == "decided"


async def test_what_expires_is_expired_at_both_with_one_record(pair: Pair) -> None:
    """Time is up at both at once, and each looks by itself."""
    await holding(pair)
    await pair.asks('{"ttl_s": 1}')
    here, there = await pair.key()
    rita = await pair.reviewer(pair.one, "rita")
    case_id, calls = await held_at_both(pair, here, there, "too-late")
    rooms = [bank.running.app.approvals for bank in pair.both]
    shown = await Counter(pair.one).shown(rita, case_id)

    async def is_over() -> bool:
        await asyncio.gather(*(room.tick() for room in rooms))
        return all([(await room.case(case_id)).state == "expired" for room in rooms])

    await until(is_over, "expired at both")
    told = await asyncio.gather(*calls)
    assert [code_of(answer) for answer in told] == ["approval_expired"] * 2
    assert (await vote(rita, shown)).status_code == 409
    assert await Counter(pair.other).went(case_id) == ["action.requested", "case.expired"]
    assert [room.pending_count for room in rooms] == [0, 0]
    assert pair.paid("too-late") == 0
    await pair.verified()


async def test_a_vote_that_is_sent_to_each_with_one_idempotency_key_counts_once(pair: Pair) -> None:
    """Each keeps its own answers, and does not know the other's: the case itself knows who has voted how."""
    await pair.asks(TWO)
    here, _ = await pair.key()
    rita = await pair.reviewer(pair.one, "rita")
    async with pair.other.running.client(origin="http://gateway.test") as rita_there:
        rita_there.cookies = rita.cookies
        for round_ in range(3):
            reference = f"same-key-{round_}"
            case_id = await pair.one.case(here, reference=reference)
            shown = await Counter(pair.one).shown(rita, case_id)
            key = {"idempotency-key": reference}
            at_both = (rita, rita_there)
            first = await asyncio.gather(*(vote(at, shown, **key) for at in at_both))
            assert [answer.status_code for answer in first] == [200, 200], [answer.text for answer in first]
            assert sorted("idempotency-replayed" in answer.headers for answer in first) == [False, True]
            again = [await vote(at, shown, **key) for at in at_both]
            assert [answer.text for answer in again] == [answer.text for answer in first]
            assert {answer.headers["idempotency-replayed"] for answer in again} == {"true"}
            assert (await vote(rita, shown)).json()["code"] == "decided"  # without the key it is another request
            went = await Counter(pair.other).went(case_id)
            assert went == ["action.requested", "case.voted"]
            assert pair.paid(reference) == 0
    await pair.verified()


@pytest.mark.parametrize("hears", [True, False], ids=["told", "deaf"])
async def test_an_answer_that_one_keeps_is_given_at_the_other_once_it_is_approved(pair: Pair, *, hears: bool) -> None:
    """A model's answer that proposes what people must approve is paid for once."""
    (pair.folder / "tools_registry" / "desk.yaml").write_text(DESK)
    await pair.reload()
    here, there = await pair.key()
    rita = await pair.reviewer(pair.other, "rita")
    other = pair.other.running.app.approvals
    if not hears:
        deafen(pair.other)
    assert (await here.post("/v1/chat/completions", json=ASKED)).status_code == 409
    (case,) = (await other.find(status="pending", limit=10)).cases
    if not hears:
        await other.look_around()  # as it does by itself, a few times a minute
    come_back = await there.post("/v1/chat/completions", json=ASKED)
    assert (come_back.status_code, come_back.json()["error"]["case"]) == (409, case.id)
    assert (await vote(rita, await Counter(pair.other).shown(rita, case.id))).status_code == 200
    answers = [await agent.post("/v1/chat/completions", json=ASKED) for agent in (there, here)]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    assert [answer.headers["x-gateway-replayed"] for answer in answers] == ["true", "true"]
    assert answers[0].content == answers[1].content  # and so the model was asked once: its ids are new each time
    (call,) = answers[0].json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "transfer"
    await pair.verified()
