"""Invariant 4 where nobody is asked: idempotency keys, identical calls in flight, and outcomes that nobody knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.documents import errors
from tests.bank_house import Bank
from tests.e2e.cases import OpenCase
from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import Agent, Ledger, within

SMALL = {"to": "acme-gmbh", "amount_cents": 700, "reference": "INV-7"}


async def pay(bank: Bank, agent: httpx.AsyncClient, key: str | None = None, **changed: Any) -> httpx.Response:
    """A transfer that passes without a person."""
    params = {"name": "ledger__transfer", "arguments": {**SMALL, **changed}}
    headers = {"accept": "application/json", "mcp-protocol-version": "2025-11-25", "host": "127.0.0.1"}
    if key is not None:
        headers["idempotency-key"] = key
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return await agent.post("/mcp", json=message, headers=headers)


def transfer_id(answer: httpx.Response) -> str:
    return str(answer.json()["result"]["structuredContent"]["transfer_id"])


# ---------------------------------------------------------------- idempotency keys


async def test_the_same_idempotency_key_gets_the_stored_result(bank: Bank) -> None:
    agent = await bank.running.agent()
    first = await pay(bank, agent, "order-1")
    again = await pay(bank, agent, "order-1")
    assert transfer_id(first) == transfer_id(again)
    assert bank.transfers() == 1
    assert "x-gateway-replayed" not in first.headers
    assert again.headers["x-gateway-replayed"] == "true"
    assert again.headers["x-gateway-decision"] == "allow"
    assert len(await bank.running.events("action.intent")) == 1
    assert (await bank.running.app.approvals.find(status="pending")).cases == []  # nobody was asked


async def test_ten_calls_with_one_key_at_once_are_one_transfer(bank: Bank) -> None:
    agent = await bank.running.agent()
    answers = await asyncio.gather(*(pay(bank, agent, "order-2") for _ in range(10)))
    assert len({transfer_id(answer) for answer in answers}) == 1
    assert bank.transfers() == 1


async def test_a_key_that_was_used_for_another_call_is_a_conflict(bank: Bank) -> None:
    agent = await bank.running.agent()
    await pay(bank, agent, "order-3")
    other = await pay(bank, agent, "order-3", amount_cents=701)
    assert other.json()["result"]["isError"]
    assert other.json()["result"]["_meta"]["gateway/code"] == "conflict"
    assert bank.transfers() == 1


async def test_other_keys_and_no_key_are_other_actions(bank: Bank) -> None:
    agent = await bank.running.agent()
    ids = [transfer_id(await pay(bank, agent, key)) for key in ("order-4", "order-5", None, None, "order-4")]
    assert ids[4] == ids[0]
    assert len(set(ids)) == 4
    assert bank.transfers() == 4


async def test_a_key_holds_although_an_identical_call_without_one_was_in_flight(bank: Bank) -> None:
    agent = await bank.running.agent()
    _, keyed = await asyncio.gather(pay(bank, agent), pay(bank, agent, "order-8"))
    paid = bank.transfers()
    again = await pay(bank, agent, "order-8")  # as after an answer that got lost
    assert transfer_id(again) == transfer_id(keyed)
    assert again.headers["x-gateway-replayed"] == "true"
    assert bank.transfers() == paid


async def test_of_two_keys_at_once_each_gets_its_answer_again(bank: Bank) -> None:
    agent = await bank.running.agent()
    keys = ("order-9", "order-10")
    first = [transfer_id(one) for one in await asyncio.gather(*(pay(bank, agent, key) for key in keys))]
    paid = bank.transfers()
    assert [transfer_id(await pay(bank, agent, key)) for key in keys] == first
    assert bank.transfers() == paid


async def test_a_used_key_is_a_conflict_also_while_an_identical_call_is_in_flight(bank: Bank) -> None:
    agent = await bank.running.agent()
    await pay(bank, agent, "order-11", amount_cents=5)
    _, other = await asyncio.gather(pay(bank, agent), pay(bank, agent, "order-11"))
    assert other.json()["result"]["_meta"]["gateway/code"] == "conflict"


async def test_a_key_of_another_agent_is_another_key(bank: Bank) -> None:
    one, other = await bank.running.agent("reader"), await bank.running.agent("writer")
    assert transfer_id(await pay(bank, one, "order-6")) != transfer_id(await pay(bank, other, "order-6"))


async def test_a_keyed_call_that_policy_denies_has_no_case(bank: Bank) -> None:
    agent = await bank.running.agent()
    denied = await pay(bank, agent, "order-7", to="mallory")
    assert denied.json()["result"]["_meta"]["gateway/code"] == "denied_by_policy"
    assert (await bank.running.app.approvals.find()).cases == []


async def test_a_key_does_not_lift_the_limit_on_calls_at_once(bank: Bank) -> None:
    config = bank.running.folder / "gateway.yaml"
    config.write_text(f"{config.read_text()}limits: {{default: {{concurrency: 2}}}}\n")
    assert errors(await bank.running.app.reload("test")) == []
    agent = await bank.running.agent()
    calls = [pay(bank, agent, f"busy-{number}", reference=f"busy-{number}") for number in range(12)]
    codes = [answer.json()["result"].get("_meta", {}).get("gateway/code") for answer in await asyncio.gather(*calls)]
    assert codes.count("rate_limited") >= 1
    assert bank.transfers() == codes.count(None)


# ---------------------------------------------------------------- in flight


async def test_identical_calls_with_an_effect_join_the_one_in_flight(bank: Bank) -> None:
    agent = await bank.running.agent()
    answers = await asyncio.gather(*(pay(bank, agent) for _ in range(8)))
    assert len({transfer_id(answer) for answer in answers}) == 1
    assert bank.transfers() == 1
    (intent,) = await bank.running.events("action.intent")
    joined = [one for one in await bank.running.events("action.decided") if "joined" in one["labels"]]
    assert [one["labels"]["joined"] for one in joined] == [intent["action"]["id"]] * 7
    assert transfer_id(await pay(bank, agent)) != transfer_id(answers[0])  # later, it is another action
    assert bank.transfers() == 2


async def test_identical_reads_and_other_agents_do_not_join(bank: Bank) -> None:
    one, other = await bank.running.agent("reader"), await bank.running.agent("writer")
    answers = await asyncio.gather(pay(bank, one), pay(bank, other))
    assert transfer_id(answers[0]) != transfer_id(answers[1])


# ---------------------------------------------------------------- outcomes that nobody knows


def told(answer: dict[str, Any]) -> tuple[str, str]:
    """Code and case of a refused call."""
    meta = answer["result"]["_meta"]
    return meta["gateway/code"], meta.get("gateway/case", "")


def reconcile(house: House, agent: Agent, case_id: str, outcome: str) -> None:
    found = house.gateway.operator("GET", f"/approvals/{case_id}").json()
    case = OpenCase(house.gateway, found)
    assert (found["state"], found["agent"], found["server"], found["tool"]) == (
        "unknown",
        agent.name,
        "ledger",
        "transfer",
    )
    assert found["arguments"]["reference"] in found["sentence"] or found["arguments"]["to"] in json.dumps(found)
    body = {"outcome": outcome, "note": "Seen in the ledger."}
    assert house.gateway.operator("POST", f"/approvals/{case.id}/reconcile", body).status_code == 200
    assert case.now()["state"] == outcome


@pytest.mark.parametrize(("fault", "rows"), [("die-before:transfer", 0), ("die-after:transfer", 1)])
def test_an_identical_call_is_not_made_again_until_a_person_has_found_out(
    make_house: MakesHouse, fault: str, rows: int
) -> None:
    house = make_house(fault)
    agent = house.gateway.agent("payer")
    agent.pay("unsure")
    back = Ledger(house.ledger.db, port=house.ledger.port)
    try:
        within(lambda: "result" in agent.tool("get_balance", {}), "the ledger is back")
        code, case_id = told(agent.pay("unsure"))
        assert code == "outcome_unknown"
        assert house.gateway.operator("GET", "/status").json()["approvals"]["unknown"] == 1
        assert back.transfers("unsure") == rows
        assert agent.pay("something else")["result"]["structuredContent"]["transfer_id"]
        reconcile(house, agent, case_id, "succeeded" if rows else "failed")
        assert agent.pay("unsure")["result"].get("isError") is not True  # that one is over; this is another
        assert back.transfers("unsure") == rows + 1
        house.gateway.verified()
    finally:
        back.close()


def test_what_a_crash_cut_off_is_found_out_by_a_person_too(make_house: MakesHouse) -> None:
    house = make_house()
    agent = house.gateway.agent("payer")
    hold = house.wire.hold_answered(b'"structuredContent"')

    def quietly() -> None:
        with contextlib.suppress(httpx.HTTPError):
            agent.pay("cut-off")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(quietly)
        hold.wait_reached()
        house.gateway.kill()
    hold.drop()
    house.gateway.start(tools=True)
    code, case_id = told(agent.pay("cut-off"))
    assert code == "outcome_unknown"
    assert house.ledger.transfers("cut-off") == 1
    house.gateway.kill()  # and it stays so
    house.gateway.start(tools=True)
    assert told(agent.pay("cut-off")) == ("outcome_unknown", case_id)
    reconcile(house, agent, case_id, "succeeded")
    (result,) = [one for one in agent.records("action.result") if one["result"]["status"] == "unknown"]
    assert result["case"] == case_id
    house.gateway.verified()
