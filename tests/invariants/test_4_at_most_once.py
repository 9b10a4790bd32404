"""Invariant 4, as far as it needs no case: an action is dispatched at most once, whatever dies when. The gateway is
killed with SIGKILL at each point of the path; afterwards the ledger's own rows, the log and the spend must agree."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import MAX_OUTPUT_TOKENS, OUTPUT_NANOUSD, Agent, Ledger, within
from tests.e2e.upstream import completion

STRUCTURED = b'"structuredContent"'


def quietly(agent: Agent, reference: str) -> dict[str, Any] | None:
    """A transfer whose caller may be left without an answer."""
    try:
        return agent.pay(reference)
    except Exception as error:  # noqa: BLE001 - the gateway dies under it
        return {"died": type(error).__name__}


def restart_and_check(house: House, agent: Agent, reference: str, *, paid: int, intents: int, status: str) -> None:
    """After the crash: nothing was done twice, every intent ended, the trail verifies, and a repeat is new."""
    gateway = house.gateway
    gateway.start(tools=True)
    assert house.ledger.transfers(reference) == paid
    assert len(agent.records("action.intent")) == intents
    results = agent.results(intents)
    assert [result["result"]["status"] for result in results] == [status] * intents
    if status == "unknown":
        assert results[0]["result"]["code"] == "gateway_restarted"
        assert results[0]["cost"]["estimated"]
        assert results[0]["refs"]["intent"] == agent.records("action.intent")[0]["id"]
    assert gateway.operator("GET", "/status").json()["audit"]["open_intents"] == 0
    gateway.verified()
    assert "result" in agent.pay(f"{reference}-again")  # the key, the tools and the policy are as before
    assert house.ledger.transfers(reference) == paid
    assert gateway.stop() == 0
    report = gateway.verified()
    assert (report.unsigned, report.in_flight, report.interrupted) == (0, 0, 0)


def test_killed_before_the_intent_nothing_happened(make_house: MakesHouse) -> None:
    house = make_house()
    agent = house.gateway.agent("payer")
    before = len(house.wire.sent)
    with house.gateway.disk_stalled(), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(quietly, agent, "before-intent")
        within(lambda: "gateway_audit_queue" in house.gateway.get("/metrics").text, "the metrics")
        assert b"before-intent" not in house.wire.sent[before:]
        house.gateway.kill()
        assert answer.result() is not None
    restart_and_check(house, agent, "before-intent", paid=0, intents=0, status="")


def test_killed_after_the_intent_and_before_the_call_arrived_is_unknown(make_house: MakesHouse) -> None:
    house = make_house()
    agent = house.gateway.agent("payer")
    hold = house.wire.hold_sent(b"after-intent")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(quietly, agent, "after-intent")
        hold.wait_reached()
        assert len(agent.records("action.intent")) == 1  # it was durable before anything was sent
        house.gateway.kill()
    hold.drop()
    restart_and_check(house, agent, "after-intent", paid=0, intents=1, status="unknown")


def test_killed_after_the_dispatch_is_unknown_and_not_done_again(make_house: MakesHouse) -> None:
    house = make_house()
    agent = house.gateway.agent("payer")
    hold = house.wire.hold_answered(STRUCTURED)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(quietly, agent, "after-dispatch")
        hold.wait_reached()
        assert house.ledger.transfers("after-dispatch") == 1
        house.gateway.kill()
    hold.drop()
    restart_and_check(house, agent, "after-dispatch", paid=1, intents=1, status="unknown")


def test_killed_before_the_result_was_durable_is_unknown_although_the_agent_was_told(make_house: MakesHouse) -> None:
    house = make_house()
    agent = house.gateway.agent("payer")
    hold = house.wire.hold_answered(STRUCTURED)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(quietly, agent, "before-result")
        hold.wait_reached()
        with house.gateway.disk_stalled():
            hold.release()
            told = answer.result()
            assert told is not None
            assert told["result"]["structuredContent"]["transfer_id"]
            house.gateway.kill()
    restart_and_check(house, agent, "before-result", paid=1, intents=1, status="unknown")


def test_killed_once_the_result_was_durable_it_stays_as_it_was(make_house: MakesHouse) -> None:
    house = make_house()
    agent = house.gateway.agent("payer")
    assert "result" in agent.pay("after-result")
    agent.results(1)
    house.gateway.kill()
    restart_and_check(house, agent, "after-result", paid=1, intents=1, status="succeeded")


def test_a_model_call_killed_before_it_was_sent_costs_what_was_reserved(make_house: MakesHouse) -> None:
    """The provider takes the connection and never shakes hands, so that not a byte of the request can be sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arrived = threading.Event()

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)
                arrived.set()
                while connection.recv(4096):
                    pass

        threading.Thread(target=accept, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        mute = f'  mute: {{type: openai, base_url: "{url}", retries: 0, connect_timeout_s: 30}}\n'
        house = make_house(ledger=False, start=False, providers=mute, models={"mute": "mute"})
        gateway = house.gateway.start()
        agent = gateway.agent("caller")
        with agent.raw("Hello", "mute"):
            assert arrived.wait(20)
            assert len(agent.records("action.intent")) == 1
            assert agent.spent_nanousd == 0
            gateway.kill()
        gateway.start()
        (result,) = agent.results(1)
        assert (result["result"]["status"], result["cost"]["estimated"]) == ("unknown", True)
        assert agent.spent_nanousd >= MAX_OUTPUT_TOKENS * OUTPUT_NANOUSD
        spent = agent.spent_nanousd
        gateway.kill()
        gateway.start()  # the reaper charges once, however often it runs
        assert agent.spent_nanousd == spent
        gateway.verified()


def test_a_model_call_killed_while_the_answer_is_on_its_way_costs_what_was_reserved(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    agent = gateway.agent("caller")
    play = house.upstream.holds(completion("Late."))
    with agent.raw(play.word):
        play.wait_arrived()
        gateway.kill()
    play.go.set()
    gateway.start()
    (result,) = agent.results(1)
    assert (result["result"]["status"], result["cost"]["estimated"]) == ("unknown", True)
    assert agent.spent_nanousd >= MAX_OUTPUT_TOKENS * OUTPUT_NANOUSD
    assert len(play.received) == 1
    gateway.verified()


@pytest.mark.parametrize("fault", ["die-before:transfer", "die-after:transfer"])
def test_a_ledger_that_dies_in_a_call_is_not_called_again(make_house: MakesHouse, fault: str) -> None:
    house = make_house(fault)
    agent = house.gateway.agent("payer")
    told = agent.pay("dying")
    assert "error" in told or told["result"]["isError"]
    assert "Traceback" not in str(told)
    (result,) = agent.results(1)
    assert result["result"]["status"] == "unknown"  # a transfer may have happened; a person has to look
    happened = int(fault == "die-after:transfer")
    assert house.ledger.transfers("dying") == happened
    # It comes back; the gateway finds it again and still does not repeat the call.
    back = Ledger(house.ledger.db, port=house.ledger.port)
    try:
        within(lambda: "result" in agent.tool("get_balance", {}), "the ledger is back")
        assert back.transfers("dying") == happened
    finally:
        back.close()


def test_a_read_that_failed_is_failed_not_unknown(make_house: MakesHouse) -> None:
    house = make_house("die-before:get_balance")
    agent = house.gateway.agent("reader-of-it")
    told = agent.tool("get_balance", {})
    assert "error" in told or told["result"]["isError"]
    (result,) = agent.results(1)
    assert result["result"]["status"] == "failed"


def test_providers_are_asked_again_only_before_the_first_byte(house: House) -> None:
    agent = house.agent("again")
    tries: list[int] = []

    def flaky(exchange: Any, _: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            exchange.answer({"error": {"message": "overloaded"}}, status=503)
        else:
            exchange.answer(completion("At last."))

    play = house.upstream.plays(flaky)
    assert agent.chat(play.word, "up-again").json()["choices"][0]["message"]["content"] == "At last."
    assert len(agent.results(1)) == 1

    def broken(exchange: Any, _: Any) -> None:
        exchange.begin()
        exchange.send(b'data: {"choices": [{"index": 0, "delta": {"content": "Half"}}]}\n\n')
        exchange.hang_up()

    half = house.upstream.plays(broken)
    assert "error" in agent.chat(half.word, "up-again", stream=True).text
    assert len(half.received) == 1


@pytest.mark.drill
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_random_under_load_the_books_agree(make_house: MakesHouse, seed: int) -> None:
    """Transfers from eight agents at once, SIGKILL somewhere among them: each row has its intent and each intent
    its end; what the agents were told happened."""
    house = make_house()
    agents = [house.gateway.agent(f"payer-{number}") for number in range(8)]
    told: dict[str, str] = {}
    enough = threading.Event()

    def work(agent: Agent) -> None:
        for number in range(200):
            reference = f"{agent.name}/{number}"
            answer = quietly(agent, reference)
            assert answer is not None
            if "result" not in answer:
                return
            told[reference] = answer["result"]["structuredContent"]["transfer_id"]
            if len(told) > 40 + 25 * seed:
                enough.set()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(work, agent) for agent in agents]
        assert enough.wait(60)
        house.gateway.kill()
        for one in running:
            one.result()
    house.gateway.start(tools=True)
    for agent in agents:
        intents = agent.records("action.intent")
        results = agent.results(len(intents))
        assert len({result["refs"]["intent"] for result in results}) == len(intents)
        paid = sum(house.ledger.transfers(f"{agent.name}/{number}") for number in range(200))
        succeeded = sum(result["result"]["status"] == "succeeded" for result in results)
        assert succeeded <= paid <= len(intents)
    assert all(house.ledger.transfers(reference) == 1 for reference in told)
    house.gateway.verified()
