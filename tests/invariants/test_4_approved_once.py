"""Invariant 4 for what a person approved: it is dispatched at most once, whatever dies when. One SIGKILL hits cases at
each point between the call and its stored result; afterwards the ledger's own rows, the cases and the log must agree, and
identical calls are told what is so."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.cases import OpenCase, open_case
from tests.e2e.fixtures import House, MakesHouse, open_house
from tests.e2e.gateway_process import Agent, Gateway, within
from tests.e2e.large_transfers import STRUCTURED, books_agree, cli, pay, quietly, status, told

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
    if paid:
        code, words = told(pay(agent, where))
        assert (code, "It was done" in words, note in words) == ("decided", True, True)
    else:  # it is decided again, and needs a new vote
        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(pay, agent, where)
            anew = open_case(agent)
            assert anew.id != case.id
            anew.deny("Not again.")
            assert told(again.result())[0] == "approval_denied"
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
