"""Invariant 4 for what a person approved: it is dispatched at most once, whatever dies when. One SIGKILL hits cases at
each point between the call and its stored result; afterwards the ledger's own rows, the cases and the log must agree, and
identical calls are told what is so."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from gateway.errors import Refusal
from gateway.quickstart.account import Ledger as Account
from tests.bank_house import Bank
from tests.e2e.cases import OpenCase, open_case
from tests.e2e.fixtures import House, MakesHouse, open_house
from tests.e2e.gateway_process import ROOT, Agent, Gateway, Ledger, within
from tests.e2e.upstream import Upstream
from tests.invariants.counter import PATIENCE_S, Counter, is_paid, refused

AMOUNT_CENTS = 12_000  # above what passes without a person
STRUCTURED = b'"structuredContent"'


def pay(agent: Agent, reference: str, **meta: Any) -> httpx.Response:
    """Ask for a transfer that a person must approve; held until the case has ended, or the hold is over."""
    arguments = {"to": "acme-gmbh", "amount_cents": AMOUNT_CENTS, "reference": reference}
    return call(agent, "transfer", arguments, **meta)


def call(agent: Agent, name: str, arguments: dict[str, Any], **meta: Any) -> httpx.Response:
    params = {"name": name, "arguments": arguments, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return agent.post("/mcp/ledger", json.dumps(message).encode(), accept="application/json, text/event-stream")


def quietly(agent: Agent, reference: str) -> httpx.Response | None:
    """A transfer whose caller may be left without an answer."""
    try:
        return pay(agent, reference)
    except httpx.HTTPError:
        return None


def told(answer: httpx.Response) -> tuple[str, str]:
    """What a caller who gets no result hears: the code, and the words for its model."""
    result = answer.json()["result"]
    assert result["isError"], result
    return result["_meta"]["gateway/code"], result["content"][0]["text"]


def status(agent: Agent, case: str, wait_s: float = 0) -> dict[str, Any]:
    answer = call(agent, "gateway__approval_status", {"case_id": case, "wait_s": wait_s})
    found: dict[str, Any] = answer.json()["result"]["structuredContent"]
    return found


def cli(gateway: Gateway, *arguments: str) -> str:
    """`gateway ...` as an operator types it."""
    command = [sys.executable, "-c", "from gateway.cli import main; main()", *arguments]
    environment = {**gateway.environment, "GATEWAY_DATA_DIR": str(gateway.data_dir)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def no_attempt_begins(gateway: Gateway) -> Iterator[None]:
    """The database takes everything but the row of an attempt, so that what is approved can't begin."""
    with contextlib.closing(
        sqlite3.connect(gateway.data_dir / "gateway.db", isolation_level=None, timeout=10)
    ) as other:
        other.execute(
            "CREATE TRIGGER no_attempt BEFORE INSERT ON case_attempt BEGIN SELECT RAISE(ABORT, 'not now'); END"
        )
        yield
        other.execute("DROP TRIGGER no_attempt")


def books_agree(house: House, agent: Agent, reference: str, *, paid: int, intents: int) -> None:
    """The ledger has at most the one row, every intent has its one end, and the trail verifies."""
    assert house.ledger.transfers(reference) == paid
    assert len(agent.records("action.intent")) == intents
    results = agent.results(intents)
    assert len({result["refs"]["intent"] for result in results}) == intents
    house.gateway.verified()


# ---------------------------------------------------------------- SIGKILL

CLAIMED = """\
package gateway

escalate contains {
	"rule": "agent_comes_back",
	"reason": "The agent comes back for it.",
	"obligations": [{"approval": {"execute_on": "claim"}}],
} if {
	ledger_transfer
	input.action.arguments.reference == "claimed"
}
"""


class Killed(NamedTuple):
    """A house whose gateway was killed with calls at every point of the path, and runs again. Each call is named after
    where it was; its reference is that name, and it has an agent of its own."""

    house: House
    agents: dict[str, Agent]
    cases: dict[str, OpenCase]
    answers: dict[str, httpx.Response | None]
    after_restart: dict[str, Any]

    def of(self, name: str) -> tuple[Agent, OpenCase]:
        return self.agents[name], self.cases[name]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    with open_house(tmp_path_factory.mktemp("killed"), start=False, approvals="hold_s: 30") as house:
        gateway, wire = house.gateway, house.wire
        (gateway.folder / "policies" / "claimed.rego").write_text(CLAIMED)
        gateway.start(tools=True)
        names = ["waits", "claimed", "sealed", "not-arrived", "dispatched", "answered", "voted"]
        agents = {name: gateway.agent(f"payer-of-{name}") for name in names}
        with ThreadPoolExecutor(len(names)) as pool:
            calls = {name: pool.submit(quietly, agent, name) for name, agent in agents.items()}
            cases = {name: open_case(agent) for name, agent in agents.items()}
            cases["sealed"].approve()
            assert calls["sealed"].result() is not None
            not_arrived = wire.hold_sent(b"not-arrived")
            cases["not-arrived"].approve()
            not_arrived.wait_reached()
            for name in ("dispatched", "answered"):
                hold = wire.hold_answered(STRUCTURED)
                cases[name].approve()
                hold.wait_reached()
            with no_attempt_begins(gateway):
                cases["claimed"].approve()
                cases["voted"].approve()
                within(lambda: sum("attempt_fault" in line for line in gateway.lines) >= 2, "attempts that can't begin")
                intents = {name: len(agent.records("action.intent")) for name, agent in agents.items()}
                with gateway.disk_stalled():
                    hold.release()  # the answer arrives; nothing of it can be stored
                    gateway.get("/metrics")
                    gateway.kill()
            answers = {name: one.result() for name, one in calls.items()}
        assert intents == dict.fromkeys(names, 0) | dict.fromkeys(names[2:6], 1)
        not_arrived.drop()
        # What the ledger's tools are is not known for a while: what was approved waits until it is.
        listing = wire.hold_answered(b'"inputSchema"')
        gateway.start()
        listing.wait_reached()
        within(lambda: any("approved_action_waits" in line for line in gateway.lines), "what was approved to wait")
        after = {
            "states": {name: case.now()["state"] for name, case in cases.items()},
            "status": gateway.operator("GET", "/status").json(),
        }
        listing.release()
        within(gateway.tools, "the ledger's tools")
        after["words"] = cli(gateway, "status")
        yield Killed(house, agents, cases, answers, after)


def test_after_the_kill_every_case_is_where_its_records_are(killed: Killed) -> None:
    assert killed.after_restart["states"] == {
        "waits": "pending",
        "claimed": "approved",
        "voted": "approved",
        "not-arrived": "unknown",
        "dispatched": "unknown",
        "answered": "unknown",
        "sealed": "succeeded",
    }
    told = killed.after_restart["status"]
    assert told["approvals"] == {"pending": 1, "unknown": 3}
    assert told["audit"]["open_intents"] == 0
    assert "3 UNKNOWN" in killed.after_restart["words"]
    assert [name for name, answer in killed.answers.items() if answer is not None] == ["sealed"]
    killed.house.gateway.verified()


def test_killed_while_it_waits_the_case_stays_and_pays_once(killed: Killed) -> None:
    agent, case = killed.of("waits")
    metrics, before = killed.house.gateway, len(agent.records())
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(pay, agent, "waits")
        within(lambda: "gateway_approvals_waiting_callers 1.0" in metrics.get("/metrics").text, "the caller waits")
        assert open_case(agent).id == case.id
        assert len(agent.records()) == before  # it attached: nothing was asked for anew
        case.approve()
        assert again.result().json()["result"]["structuredContent"]["transfer_id"]
    assert pay(agent, "waits").headers["x-gateway-replayed"] == "true"
    books_agree(killed.house, agent, "waits", paid=1, intents=1)


def test_killed_between_the_vote_and_the_attempt_it_runs_once_without_being_asked_for(killed: Killed) -> None:
    agent, case = killed.of("voted")
    case.ended("succeeded")
    assert pay(agent, "voted").headers["x-gateway-replayed"] == "true"
    books_agree(killed.house, agent, "voted", paid=1, intents=1)


def test_killed_before_it_was_claimed_it_runs_once_when_the_agent_comes_back(killed: Killed) -> None:
    agent, case = killed.of("claimed")
    assert case.now()["state"] == "approved"
    with ThreadPoolExecutor(4) as pool:
        answers = [one.result() for one in [pool.submit(pay, agent, "claimed") for _ in range(4)]]
    paid = [answer.json()["result"]["structuredContent"] for answer in answers]
    assert paid == [paid[0]] * 4
    assert status(agent, case.id)["result"]["structuredContent"] == paid[0]
    books_agree(killed.house, agent, "claimed", paid=1, intents=1)


@pytest.mark.parametrize(("where", "paid"), [("not-arrived", 0), ("dispatched", 1), ("answered", 1)])
def test_killed_while_it_ran_it_is_unknown_and_never_repeated(killed: Killed, where: str, paid: int) -> None:
    (agent, case), wire = killed.of(where), killed.house.wire
    found = case.now()
    assert [one["outcome"] for one in found["attempts"]] == ["unknown"]
    (result,) = agent.results(1)
    assert (result["result"]["status"], result["result"]["code"]) == ("unknown", "gateway_restarted")
    assert (result["case"], result["refs"]["intent"]) == (case.id, agent.records("action.intent")[0]["id"])
    sent = len(wire.sent)
    code, words = told(pay(agent, where))
    assert code == "outcome_unknown"
    assert "do not repeat it" in words
    assert case.id in words
    asked = status(agent, case.id, wait_s=5)  # it has ended, as far as anybody knows: there is nothing to wait for
    assert (asked["state"], "result" in asked) == ("unknown", False)
    assert "A person must find out" in asked["guidance"]
    assert case.vote("approve").json()["code"] == "decided"
    assert where.encode() not in wire.sent[sent:]
    books_agree(killed.house, agent, where, paid=paid, intents=1)
    # A person finds out, through the command line or the API, and that is what an identical call is told from then on.
    outcome, note = ("succeeded", "The ledger has it.") if paid else ("failed", "The ledger has no such row.")
    gateway = killed.house.gateway
    if where == "answered":
        path, body = f"/approvals/{case.id}/reconcile", {"outcome": outcome, "note": note}
        assert gateway.operator("POST", path, body).json()["state"] == outcome
    else:
        cli(gateway, "approvals", "reconcile", case.id, "--outcome", outcome, "--note", note)
    (reconciled,) = [one for one in gateway.leaves(type="case.reconciled") if one["case"] == case.id]
    assert (reconciled["labels"]["outcome"], reconciled["actor"]["user"]) == (outcome, "operator")
    code, words = told(pay(agent, where))
    assert (code, "It was done" in words, "It was not done" in words) == ("decided", bool(paid), not paid)
    assert note in words
    assert note in status(agent, case.id)["guidance"]
    assert where.encode() not in wire.sent[sent:]
    books_agree(killed.house, agent, where, paid=paid, intents=1)


def test_killed_once_the_answer_was_durable_the_new_process_gives_it(killed: Killed) -> None:
    agent, _ = killed.of("sealed")
    first, sent = killed.answers["sealed"], len(killed.house.wire.sent)
    assert first is not None
    again = pay(agent, "sealed")
    assert (first.headers.get("x-gateway-replayed"), again.headers["x-gateway-replayed"]) == (None, "true")
    assert again.json()["result"]["structuredContent"] == first.json()["result"]["structuredContent"]
    assert b"sealed" not in killed.house.wire.sent[sent:]
    books_agree(killed.house, agent, "sealed", paid=1, intents=1)


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
    with contextlib.closing(sqlite3.connect(writer.path, isolation_level=None)) as disk:

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


# ---------------------------------------------------------------- at random


@pytest.mark.drill
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_while_people_approve_nothing_is_paid_twice(make_house: MakesHouse, seed: int) -> None:
    """Sixteen agents ask, two people approve as fast as they can, SIGKILL somewhere among them, twice."""
    house = make_house(approvals="hold_s: 30, pending_per_agent: 1000")
    gateway, stop = house.gateway, threading.Event()
    agents = [gateway.agent(f"payer-{number}") for number in range(16)]
    references = itertools.count(1)
    asked: dict[str, Agent] = {}
    paid: set[str] = set()

    def ask(agent: Agent) -> None:
        while not stop.is_set():
            reference = f"r{next(references)}"
            asked[reference] = agent
            answer = quietly(agent, reference)
            if answer is None:
                return
            if "structuredContent" in answer.json().get("result", {}):
                paid.add(reference)

    def approve() -> None:
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                for shown in gateway.operator("GET", "/approvals?status=pending").json():
                    OpenCase(gateway, shown).vote("approve")

    def kill_after(payments: int) -> None:
        stop.clear()
        with ThreadPoolExecutor(len(agents) + 2) as pool:
            running = [pool.submit(ask, agent) for agent in agents] + [pool.submit(approve) for _ in range(2)]
            try:
                within(lambda: len(paid) >= payments, f"{payments} payments", 60)
                gateway.kill()
            finally:
                stop.set()
            for one in running:
                one.result()
        gateway.start(tools=True)

    def waiting_to_run() -> list[Any]:
        found = gateway.operator("GET", "/approvals?status=open").json()
        return [one for one in found if one["state"] in ("approved", "executing")]

    kill_after(8 + 3 * seed)
    kill_after(40 + 4 * seed)  # the account has money for 83
    within(lambda: not waiting_to_run(), "what was approved is carried out")
    assert all(house.ledger.transfers(reference) == 1 for reference in paid)
    for reference, agent in asked.items():
        rows = house.ledger.transfers(reference)
        assert rows <= 1, reference
        if rows:
            ends = {"succeeded": "structuredContent", "unknown": "outcome_unknown"}
            sent = len(house.wire.sent)
            answer = pay(agent, reference)
            assert any(word in answer.text for word in ends.values()), answer.text
            assert reference.encode() not in house.wire.sent[sent:]
    for agent in agents:
        intents = agent.records("action.intent")
        assert len({result["refs"]["intent"] for result in agent.results(len(intents))}) == len(intents)
    gateway.verified()
