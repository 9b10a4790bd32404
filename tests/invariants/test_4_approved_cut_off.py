"""Invariant 4 for what a person approved, where nothing is killed: the gateway stops, the ledger dies or is away, the disk
is slow. What is known is told, what is not is `unknown`, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import Refusal
from gateway.quickstart.account import Ledger as Account
from tests.bank_house import Bank
from tests.e2e.cases import OpenCase, open_case
from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import Gateway, Ledger, within
from tests.e2e.large_transfers import STRUCTURED, books_agree, pay, told
from tests.e2e.upstream import Upstream
from tests.invariants.counter import PATIENCE_S, Counter, is_paid, refused

# ---------------------------------------------------------------- SIGTERM


def test_a_stop_lets_what_runs_finish_and_tells_who_waits_to_come_back(make_house: MakesHouse) -> None:
    house = make_house(start=False, approvals="hold_s: 30")
    gateway = house.gateway
    gateway.config.write_text(gateway.config.read_text().replace("shutdown_grace_s: 10", "shutdown_grace_s: 2"))
    gateway.start(tools=True)
    agents = {name: gateway.agent(f"payer-of-{name}") for name in ("waits", "runs", "outlasts")}
    with ThreadPoolExecutor(3) as pool:
        calls = {name: pool.submit(pay, agent, name) for name, agent in agents.items()}
        cases = {name: open_case(agent) for name, agent in agents.items()}
        holds = {}
        for name in ("runs", "outlasts"):
            holds[name] = house.wire.hold_answered(STRUCTURED)
            cases[name].approve()
            holds[name].wait_reached()
        gateway.signal(signal.SIGTERM)
        for name, one in calls.items():  # nobody is kept until the grace is over
            error = one.result().json()["error"]
            assert (one.result().status_code, one.result().headers["retry-after"]) == (503, "1")
            assert (error["data"]["gateway/code"], error["data"]["gateway/case"]) == ("stopping", cases[name].id)
        holds["runs"].release()
        assert gateway.wait_ended() == 0
    report = gateway.verified()
    assert (report.unsigned, report.in_flight, report.interrupted) == (0, 0, 0)
    gateway.start(tools=True)
    assert {name: case.now()["state"] for name, case in cases.items()} == {
        "waits": "pending",
        "runs": "succeeded",
        "outlasts": "unknown",
    }
    assert pay(agents["runs"], "runs").headers["x-gateway-replayed"] == "true"
    assert told(pay(agents["outlasts"], "outlasts"))[0] == "outcome_unknown"
    (result,) = agents["outlasts"].results(1)
    assert (result["result"]["status"], result["result"]["code"]) == ("unknown", "stopping")
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(pay, agents["waits"], "waits")
        cases["waits"].approve()
        assert "structuredContent" in again.result().json()["result"]
    for name, agent in agents.items():
        books_agree(house, agent, name, paid=1, intents=1)


# ---------------------------------------------------------------- the ledger dies


def test_a_ledger_that_dies_or_is_away_is_told_for_what_it_is(tmp_path: Path) -> None:
    """Dead before or after it paid: nobody knows. Not to be reached: nothing was done, and what was approved is carried
    out once it is back, for the identical call, without being voted on again."""
    with contextlib.ExitStack() as stack:

        def ledger(*faults: str, port: int = 0) -> Ledger:
            started = Ledger(tmp_path / "ledger.db", *faults, port=port)
            stack.callback(started.close)
            return started

        def approved(name: str) -> tuple[OpenCase, httpx.Response]:
            with ThreadPoolExecutor(1) as pool:
                call = pool.submit(pay, agents[name], name)
                case = open_case(agents[name])
                case.approve()
                return case, call.result()

        def answers() -> bool:
            return "structuredContent" in agents["away"].tool("get_balance", {})["result"]

        upstream, bank = stack.enter_context(Upstream()), ledger("die-after:transfer")
        url = f"http://127.0.0.1:{bank.port}/mcp"  # no wiretap: a refused connection is part of this
        gateway = Gateway(tmp_path / "gateway", upstream.url, url, approvals="hold_s: 30")
        stack.callback(gateway.close)
        gateway.start(tools=True)
        house = House(gateway, upstream, bank, None)
        agents = {name: gateway.agent(f"payer-of-{name}") for name in ("after", "before", "away")}

        _, answer = approved("after")
        assert told(answer)[0] == "outcome_unknown"
        case, answer = approved("away")
        code, words = told(answer)
        assert (code, "nothing was done" in words) == ("upstream_failed", True)
        shown = case.now()
        assert (shown["state"], [one["outcome"] for one in shown["attempts"]]) == ("approved", ["not_sent"])
        ledger("die-before:transfer", port=bank.port)
        within(answers, "the ledger is back")
        _, answer = approved("before")
        assert told(answer)[0] == "outcome_unknown"
        ledger(port=bank.port)
        within(answers, "the ledger is back")
        assert "structuredContent" in pay(agents["away"], "away").json()["result"]
        assert [one["outcome"] for one in case.now()["attempts"]] == ["not_sent", "succeeded"]
        for name, paid in (("after", 1), ("before", 0)):
            assert told(pay(agents[name], name))[0] == "outcome_unknown"
            books_agree(house, agents[name], name, paid=paid, intents=1)
        assert house.ledger.transfers("away") == 1
        assert gateway.operator("GET", "/status").json()["approvals"] == {"pending": 0, "unknown": 2}


# ---------------------------------------------------------------- in one process


@pytest.fixture
async def counter(bank: Bank) -> AsyncIterator[Counter]:
    counter = Counter(bank)
    await counter.configure("", hold_s=PATIENCE_S)
    yield counter
    await counter.verified()


async def test_a_disk_that_takes_its_time_with_the_answer_loses_nothing(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was paid has happened, so its record is waited for, and whoever waits hears of it only then."""
    writer = counter.app.writer
    monkeypatch.setattr(writer, "_timeout_s", 0.1)  # longer than this nobody is kept waiting for a record
    pays = Account.transfer
    with contextlib.closing(sqlite3.connect(writer.database.place, isolation_level=None)) as disk:

        def pays_and_stalls(account: Account, **arguments: Any) -> dict[str, Any]:
            answer = pays(account, **arguments)
            disk.execute("BEGIN IMMEDIATE")
            return answer

        monkeypatch.setattr(Account, "transfer", pays_and_stalls)
        async with await counter.bank.running.agent() as agent, await counter.bank.reviewer() as rita:
            call, case_id = await counter.held(agent)
            await counter.approve(rita, case_id)
            async with asyncio.timeout(PATIENCE_S):
                while not disk.in_transaction:
                    await asyncio.sleep(0.01)
            with pytest.raises(Refusal, match="took longer"):
                await writer.write(lambda _: None)
            assert not call.done()
            assert (await counter.app.approvals.case(case_id)).state == "executing"
            disk.execute("ROLLBACK")
            assert is_paid(await call)
    assert await counter.went(case_id) == ["action.requested", "case.approved", "action.intent", "action.result"]
    assert counter.app.log.open_intents == 0
    assert counter.bank.transfers() == 1


async def test_after_the_replay_window_an_identical_call_is_a_new_action(counter: Counter) -> None:
    await counter.configure("replay_s: 1, ")
    async with await counter.bank.running.agent() as agent, await counter.bank.reviewer() as rita:
        first = await counter.bank.case(agent)
        await counter.approve(rita, first)
        await counter.until(first, "succeeded")
        assert is_paid(await counter.call(agent))
        async with asyncio.timeout(PATIENCE_S):
            while is_paid(answer := await counter.call(agent)):
                await asyncio.sleep(0.05)
        code, words = refused(answer)
        assert (code, first in words) == ("approval_required", False)
        await counter.app.approvals.tick()
        status = await counter.status(agent, first)  # the first ended well, and its result is not kept any more
        assert (status["state"], "result" in status) == ("succeeded", False)
    assert counter.bank.transfers() == 1
