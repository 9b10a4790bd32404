"""Invariant 4 where the tool server does a call and says that it did not: its word is no proof, so nothing is sent twice."""

from __future__ import annotations

import pytest

from tests.bank_house import Bank
from tests.invariants.counter import Counter, refused
from tests.invariants.test_4_once_without_people import pay

SAYS = {
    "no such session": (404, b"{}"),
    "gone": (410, b"{}"),
    "bad request": (400, b"{}"),
    "bad request, as JSON-RPC": (400, b'{"jsonrpc":"2.0","id":$id,"error":{"code":-32000,"message":"No session"}}'),
    "not let in": (401, b"{}"),
    "forbidden": (403, b"{}"),
    "elsewhere": (307, b"{}"),
    "failed": (500, b"{}"),
    "away": (503, b"{}"),
    "no method": (404, b'{"jsonrpc":"2.0","id":$id,"error":{"code":-32601,"message":"Method not found"}}'),
    "parameters": (200, b'{"jsonrpc":"2.0","id":$id,"error":{"code":-32602,"message":"Invalid params"}}'),
    "request": (200, b'{"jsonrpc":"2.0","id":$id,"error":{"code":-32600,"message":"Invalid request"}}'),
    "its own fault": (200, b'{"jsonrpc":"2.0","id":$id,"error":{"code":-32603,"message":"Internal error"}}'),
    "not JSON": (200, b"<html>"),
    "nothing": (202, b""),
}
BEFORE_THE_CALL = (400, b'{"jsonrpc":"2.0","id":$id,"error":{"code":-32021,"message":"Missing capability"}}')


@pytest.fixture
def counter(bank: Bank) -> Counter:
    return Counter(bank)


@pytest.mark.parametrize("said", SAYS.values(), ids=SAYS)
async def test_a_vote_is_spent_with_the_first_byte_whatever_comes_back(
    counter: Counter, said: tuple[int, bytes]
) -> None:
    bank = counter.bank
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        bank.lies.answer = said
        await counter.approve(rita, case_id)
        await counter.until(case_id, "unknown")
        bank.lies.answer = None
        for _ in range(2):
            code, words = refused(await counter.call(agent))
            assert (code, "do not repeat it" in words) == ("outcome_unknown", True)
    assert (bank.transfers(), bank.lies.calls) == (1, 1)


@pytest.mark.parametrize("said", [SAYS[name] for name in ("not let in", "no such session", "parameters")])
async def test_a_call_that_needed_nobody_is_found_out_about_too(counter: Counter, said: tuple[int, bytes]) -> None:
    bank = counter.bank
    async with await bank.running.agent() as agent:
        bank.lies.answer = said
        told = (await pay(bank, agent)).json()["result"]
        assert "It is not known whether the tool did it" in told["content"][0]["text"]
        bank.lies.answer = None
        for _ in range(2):
            assert refused((await pay(bank, agent)).json())[0] == "outcome_unknown"
    assert (bank.transfers(), bank.lies.calls) == (1, 1)


async def test_what_the_protocol_refuses_before_the_call_has_failed(counter: Counter) -> None:
    bank = counter.bank
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        bank.lies.answer = BEFORE_THE_CALL
        await counter.approve(rita, case_id)
        await counter.until(case_id, "failed")
