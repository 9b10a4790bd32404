"""What happens at two replicas at the same moment, or while they can't hear each other, or after one has ended."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

import pytest

from gateway.audit.view import Filter
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.beside import Beside
from tests.invariants.counter import Counter, is_paid
from tests.replicas.house import Pair, code_of, configure, deafen, footing, pay, until, vote

SOON_S = 1.0
TWO = '{"quorum": [{"approve": 2}]}'


async def test_the_votes_of_two_persons_at_both_at_once_are_both_counted(pair: Pair) -> None:
    await pair.asks(TWO)
    here, there = await pair.key()
    rita, rob = await pair.reviewer(pair.one, "rita"), await pair.reviewer(pair.other, "rob")
    for round_ in range(5):
        reference = f"both-{round_}"
        case_id = await pair.one.case(here, reference=reference)
        shown = await Counter(pair.other).shown(rob, case_id)  # at once, whoever has it
        voted = await asyncio.gather(vote(rita, shown), vote(rob, shown))
        assert [answer.status_code for answer in voted] == [200, 200], [answer.text for answer in voted]
        assert "approved" in {answer.json()["state"] for answer in voted}
        for bank in pair.both:
            await Counter(bank).until(case_id, "succeeded")
        first, again = await asyncio.gather(pay(pair.one, here, reference), pay(pair.other, there, reference))
        assert is_paid(first)
        assert first["result"]["structuredContent"] == again["result"]["structuredContent"]
        assert pair.paid(reference) == 1
        went = await Counter(pair.other).went(case_id)
        assert went.count("action.intent") == went.count("action.result") == 1
    await pair.verified()


async def test_where_one_vote_is_enough_the_same_moment_approves_once(pair: Pair) -> None:
    here, _ = await pair.key()
    rita, rob = await pair.reviewer(pair.one, "rita"), await pair.reviewer(pair.other, "rob")
    for round_ in range(5):
        reference = f"either-{round_}"
        case_id = await pair.one.case(here, reference=reference)
        shown = await Counter(pair.other).shown(rob, case_id)
        voted = await asyncio.gather(vote(rita, shown), vote(rob, shown))
        assert sorted(answer.status_code for answer in voted) == [200, 409], [answer.text for answer in voted]
        await Counter(pair.other).until(case_id, "succeeded")
        assert pair.paid(reference) == 1
        went = await Counter(pair.one).went(case_id)
        assert went.count("action.intent") == 1
    await pair.verified()


@pytest.mark.parametrize("hears", [True, False], ids=["told", "deaf"])
async def test_suspending_at_one_ends_at_the_other_what_runs_and_refuses_what_comes(pair: Pair, *, hears: bool) -> None:
    if not hears:  # no signal arrives; what is left is looking at the database
        deafen(pair.other)
    here, there = await pair.key()
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Tell me a long story."}]}
    stream = asyncio.create_task(there.post("/v1/chat/completions", json=body))
    governor = pair.other.running.app.governor

    async def streams() -> bool:
        return governor.open_streams == 1

    async def is_refused() -> bool:
        return (await there.get("/v1/models")).status_code == 403

    async def is_let_in() -> bool:
        return (await there.get("/v1/models")).status_code == 200

    await until(streams, "a stream at the other")
    async with pair.one.running.operator() as operator:
        began_s = time.monotonic()
        said = await operator.post("/api/v1/agents/reader/suspend", json={"reason": "a drill"})
        assert said.status_code == 200
        assert (await here.get("/v1/models")).status_code == 403
        await until(is_refused, "a refusal at the other", SOON_S)
        ended = await stream
        assert time.monotonic() - began_s < SOON_S
        assert '"agent_suspended"' in ended.text
        assert "[DONE]" not in ended.text
        assert (await operator.post("/api/v1/agents/reader/resume", json={"reason": "over"})).status_code == 200
        await until(is_let_in, "the agent resumed at the other", SOON_S)


async def test_a_key_is_good_at_the_other_for_all_who_come_with_it_at_once(pair: Pair) -> None:
    for _ in range(5):
        _, there = await pair.key()
        answers = await asyncio.gather(*(there.get("/v1/models") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}


async def test_a_revoked_key_is_refused_by_a_deaf_replica_within_a_second(pair: Pair) -> None:
    deafen(pair.other)
    here, there = await pair.key()
    assert (await there.get("/v1/models")).status_code == 200
    async with pair.one.running.operator() as operator:
        (key,) = (await operator.get("/api/v1/agents/reader/keys")).json()
        assert (await operator.delete(f"/api/v1/agents/reader/keys/{key['id']}")).status_code == 200

    async def is_refused() -> bool:
        return (await there.get("/v1/models")).status_code == 401

    assert (await here.get("/v1/models")).status_code == 401
    await until(is_refused, "a refusal at the other", SOON_S)


async def test_a_hard_budget_is_one_for_both(pair: Pair) -> None:
    body = {"model": "demo", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello there!"}]}
    measuring, _ = await pair.key("writer")
    assert (await measuring.post("/v1/chat/completions", json=body)).status_code == 200
    (intent,) = await pair.one.running.events("action.intent")
    budget = Decimal(intent["limits"]["reserved_usd"]) * 12
    limits = f'limits: {{agents: {{reader: {{budgets: [{{window: day, usd: "{budget:f}"}}]}}}}}}\n'
    configure(pair.folder, limits=limits)
    await pair.reload()
    here, there = await pair.key()

    async def burst() -> list[int]:
        calls = [client.post("/v1/chat/completions", json=body) for _ in range(20) for client in (here, there)]
        return [answer.status_code for answer in await asyncio.gather(*calls)]

    codes = await burst()
    while 200 in (again := await burst()):  # what was reserved and not spent is there again
        codes += again
    assert set(codes) == {200, 402}

    async def results() -> list[dict[str, Any]]:  # written right after the answer, each by its replica
        wanted = Filter(agent="reader", type="action.result", limit=1000)
        page = await pair.other.running.app.log.query(wanted)
        return page.records if len(page.records) >= codes.count(200) else []

    records = await until(results, "a result of each answered call")
    spent = sum((Decimal(record["cost"]["usd"]) for record in records), Decimal(0))
    assert codes.count(200) == len(records)
    assert budget / 2 < spent <= budget
    await pair.verified()


async def test_what_an_ended_replica_was_doing_is_unknown_and_it_does_nothing_more(pair: Pair) -> None:
    here, there = await pair.key()
    one, other = pair.one.running, pair.other.running
    with pair.ledger_stalled():
        call = asyncio.create_task(pay(pair.one, here, "in-flight", 1))

        async def begun() -> list[dict[str, Any]]:
            return await other.events("action.intent")

        (intent,) = await until(begun, "the intent, seen from the other")
        again = asyncio.create_task(pay(pair.other, there, "in-flight", 1))
        # As the other does once it has been silent for long enough.
        beside = Beside(pair.database_url, name="test")
        assert await asyncio.to_thread(beside.run, lambda c: rows.end(c, footing(one.app).replica))
        await asyncio.to_thread(beside.close)

        async def is_unknown() -> Any:
            return (await other.app.approvals.find(status="unknown", limit=10)).cases

        (case,) = await until(is_unknown, "a case for people to find out")
    assert is_paid(await call)  # its caller hears the truth, which can't be put on record here any more

    async def is_latched() -> bool:
        return one.app.writer.latched is not None

    await until(is_latched, "the ended replica notices")
    (result,) = await other.events("action.result")
    assert result["action"]["id"] == intent["action"]["id"]
    assert result["result"]["status"] == "unknown"
    assert case.action.id == intent["action"]["id"]
    assert case.card.target["owner"]  # from the registry, and the agent's from the register: the record has neither
    assert case.card.agent.owners
    # It takes no more, of anybody, and says so; the other goes on.
    assert code_of(await pay(pair.one, here, "after-the-end", 1)) == "audit_unavailable"
    assert pair.paid("after-the-end") == 0
    async with one.client() as probe:
        assert (await probe.get("/readyz")).status_code == 503
    assert is_paid(await pay(pair.other, there, "goes-on", 1))
    # Not again before people have found out: neither for who waited for it nor for who comes now.
    assert code_of(await again) == code_of(await pay(pair.other, there, "in-flight", 1)) == "outcome_unknown"
    assert pair.paid("in-flight") == 1
    async with other.operator() as operator:
        found = (await operator.get("/api/v1/status")).json()["replicas"]
    assert sorted(row["state"] for row in found) == ["ended", "running"], json.dumps(found)
    await pair.verified()
