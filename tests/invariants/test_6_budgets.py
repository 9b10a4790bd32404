"""Invariant 6: budgets are reserved before the call and settled after; concurrent calls can't overspend a hard
budget; a restart forgets nothing; a call that nobody waited for is paid for all the same."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import INPUT_NANOUSD, MAX_OUTPUT_TOKENS, OUTPUT_NANOUSD, Agent, Gateway, within
from tests.e2e.upstream import Exchange, Play, chunk, completion, usage, words

TRUE_NANOUSD = 10 * INPUT_NANOUSD + 5 * OUTPUT_NANOUSD  # of the upstream's usual usage: 10 in, 5 out


def nanousd(record: dict[str, object]) -> int:
    cost = record["cost"]
    assert isinstance(cost, dict)
    whole, _, fraction = cost["usd"].partition(".")
    return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def read_until(connection: socket.socket, needle: bytes) -> bytes:
    got = b""
    while needle not in got:
        data = connection.recv(65536)
        assert data, f"the stream ended without {needle!r}: {got!r}"
        got += data
    return got


def test_fifty_at_once_can_not_overspend_a_budget_for_ten(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway
    gateway.start()
    play = house.upstream.holds(completion("Done."))
    play.go.set()
    one = gateway.agent("measure")
    one.chat(play.word)
    (intent,) = one.records("action.intent")
    each = nanousd({"cost": {"usd": intent["limits"]["reserved_usd"]}})
    budget = each * 10 + each // 2
    limits = f'  agents:\n    ten: {{budgets: [{{window: day, usd: "{budget / 1e9:.9f}"}}]}}\n'
    gateway.config.write_text(gateway.config.read_text().replace("tool_registry:", f"{limits}tool_registry:"))
    assert gateway.operator("POST", "/reload").status_code == 200
    play.go.clear()
    play.received.clear()
    agent = gateway.agent("ten")

    with ThreadPoolExecutor(50) as pool:
        calls = [pool.submit(agent.chat, play.word) for _ in range(50)]
        agent.refusals(40)
        assert len(play.received) <= 10  # while ten wait, nobody else got through
        play.go.set()
        statuses = sorted(call.result().status_code for call in calls)
    assert statuses == [200] * 10 + [402] * 40
    assert len(play.received) == 10
    agent.results(10)
    assert agent.spent_nanousd == 10 * TRUE_NANOUSD <= budget


def test_a_restart_forgets_no_spend(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    agent = gateway.agent("saver")
    for _ in range(3):
        agent.chat("Hello")
    agent.results(3)
    before = agent.spent_nanousd
    assert before == 3 * TRUE_NANOUSD
    assert gateway.stop() == 0
    assert agent.spent_nanousd == before
    gateway.start()
    assert left(agent) == left_at_first() - before
    agent.chat("Hello")
    agent.results(4)
    gateway.kill()
    gateway.start()
    assert agent.spent_nanousd == 4 * TRUE_NANOUSD
    assert left(agent) == left_at_first() - 4 * TRUE_NANOUSD
    gateway.verified()


def left_at_first() -> int:
    return 1000 * 1_000_000_000


def left(agent: Agent) -> int:
    """What the agent itself is told is left of its day, in nano-dollars."""
    with agent.client() as client:
        told = client.get("/api/v1/me").json()
    text = json.dumps(told)
    budgets = told["limits"][f"agent:{agent.name}"]["budgets"]
    day = next(budget for budget in budgets if budget["window"].startswith("day:"))
    assert "left_nanousd" in day, text
    return int(day["left_nanousd"])


def half_a_stream(exchange: Exchange, play: Play) -> None:
    """Two words, then the rest once the test says so."""
    exchange.begin()
    for event in words("one ", "two "):
        if event["choices"] and event["choices"][0]["finish_reason"] is None:
            exchange.event(event)
    play.wait_go()
    exchange.event(chunk({"content": "three"}))
    exchange.event(chunk({}, finish="stop"))
    exchange.event(chunk(None, usage=usage(10, 5)))
    exchange.send(b"data: [DONE]\n\n")
    exchange.end()


def test_a_client_that_hangs_up_is_charged_exactly_where_the_stream_is_drained(house: House) -> None:
    agent = house.agent("drained")
    play = house.upstream.plays(half_a_stream)
    with agent.raw(play.word, stream=True) as connection:
        read_until(connection, b"two ")
    play.go.set()
    play.wait_ended()
    (result,) = agent.results(1)
    assert result["result"]["status"] == "succeeded"
    # The hang-up and the rest of the answer race to the gateway; the cost is the same whichever it sees first.
    assert result["result"]["code"] in ("client_left", None)
    assert not result["cost"]["estimated"]
    assert nanousd(result) == TRUE_NANOUSD
    assert agent.spent_nanousd == TRUE_NANOUSD


def test_a_client_that_hangs_up_is_charged_what_was_reserved_where_paying_stops(house: House) -> None:
    agent = house.agent("cut")
    left_: list[bool] = []

    def player(exchange: Exchange, _: Play) -> None:
        exchange.begin()
        # This one tells in every event what was used so far, which is not what the whole would have cost.
        exchange.event(chunk({"content": "one "}, usage=usage(10, 1)))
        exchange.event(chunk({"content": "two "}, usage=usage(10, 2)))
        left_.append(exchange.client_left())

    play = house.upstream.plays(player)
    with agent.raw(play.word, "up-cancel", stream=True) as connection:
        read_until(connection, b"two ")
    (result,) = agent.results(1)
    play.wait_ended()
    assert left_ == [True]
    assert (result["result"]["status"], result["result"]["code"]) == ("cancelled", "client_left")
    assert result["cost"]["estimated"]
    assert nanousd(result) >= 10 * INPUT_NANOUSD + MAX_OUTPUT_TOKENS * OUTPUT_NANOUSD
    assert agent.spent_nanousd == nanousd(result)


def test_a_client_that_hangs_up_before_the_first_byte_stops_the_paying_too(house: House) -> None:
    agent = house.agent("early")
    left_: list[bool] = []
    play = house.upstream.plays(lambda exchange, _: left_.append(exchange.client_left()))
    with agent.raw(play.word, "up-cancel", stream=True):
        play.wait_arrived()
    (result,) = agent.results(1)
    play.wait_ended()
    assert left_ == [True]
    assert (result["result"]["status"], result["result"]["code"]) == ("cancelled", "client_left")
    assert result["cost"]["estimated"]


def test_a_client_that_hangs_up_on_a_whole_answer_pays_for_it(house: House) -> None:
    agent = house.agent("whole")
    play = house.upstream.holds(completion("Done."))
    with agent.raw(play.word):
        play.wait_arrived()
    play.go.set()
    (result,) = agent.results(1)
    assert result["result"]["status"] == "succeeded"
    assert agent.spent_nanousd == TRUE_NANOUSD


UNBELIEVABLE = [
    pytest.param({}, id="nothing in it"),
    pytest.param(usage(-1_000_000, 5), id="negative"),
    pytest.param({"prompt_tokens": 10}, id="half of it"),
    pytest.param({"prompt_tokens": "10", "completion_tokens": "5"}, id="text"),
    pytest.param("a lot", id="not even an object"),
    pytest.param({"prompt_tokens": None, "completion_tokens": None}, id="nulls"),
]


@pytest.mark.parametrize("told", UNBELIEVABLE)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_usage_that_can_not_be_believed_costs_what_was_reserved(house: House, told: object, *, stream: bool) -> None:
    agent = house.agent("odd")
    if stream:
        play = house.upstream.streams(*words("Hello", used=told))
    else:
        play = house.upstream.answers(completion("Hello", used=told))
    answer = agent.chat(play.word, stream=stream)
    assert answer.status_code == 200
    assert "Hello" in answer.text
    (result,) = agent.results(1)
    assert result["result"]["status"] == "succeeded"
    assert result["cost"]["estimated"]
    assert nanousd(result) >= MAX_OUTPUT_TOKENS * OUTPUT_NANOUSD


def test_more_cached_tokens_than_there_were_are_no_discount(house: House) -> None:
    agent = house.agent("cache")
    for cached, is_estimated in ((10, False), (1_000_000, True)):
        told = {**usage(10, 5), "prompt_tokens_details": {"cached_tokens": cached}}
        play = house.upstream.streams(*words("Hello", used=told))
        agent.chat(play.word, stream=True)
        result = agent.results(1 + is_estimated)[-1]
        assert result["cost"]["estimated"] is is_estimated
        if is_estimated:
            assert nanousd(result) >= MAX_OUTPUT_TOKENS * OUTPUT_NANOUSD
        else:
            assert nanousd(result) == 10 * INPUT_NANOUSD // 2 + 5 * OUTPUT_NANOUSD


@pytest.mark.parametrize("asked", [None, {"include_usage": True}, {"include_usage": False, "vendor": 1}])
def test_usage_is_asked_for_upstream_and_only_shown_to_who_asked(house: House, asked: dict[str, object] | None) -> None:
    agent = house.agent("usage")
    play = house.upstream.streams(*words("Hello"))
    fields: dict[str, Any] = {} if asked is None else {"stream_options": asked}
    answer = agent.chat(play.word, stream=True, **fields)
    sent = play.received[0].body["stream_options"]
    assert sent["include_usage"] is True
    assert sent.get("vendor") == (asked or {}).get("vendor")
    shown = any('"prompt_tokens"' in line for line in answer.text.splitlines())
    assert shown is bool((asked or {}).get("include_usage"))
    assert answer.text.rstrip().endswith("data: [DONE]")
    (result,) = agent.results(1)
    assert nanousd(result) == TRUE_NANOUSD
    assert not result["cost"]["estimated"]


def test_a_call_without_a_cap_gets_the_models_cap(house: House) -> None:
    agent = house.agent("cap")
    play = house.upstream.answers(completion("Hello"))
    agent.chat(play.word)
    agent.chat(play.word, max_tokens=7)
    agent.chat(play.word, max_completion_tokens=9)
    first, second, third = (received.body for received in play.received)
    assert first["max_tokens"] == MAX_OUTPUT_TOKENS
    assert second["max_tokens"] == 7
    assert third["max_tokens"] == 9  # what was reserved, in the field that this provider obeys
    assert "max_completion_tokens" not in third


def test_concurrency_is_given_back_however_a_call_ends(house: House) -> None:
    agent = house.gateway.agent("one-at-a-time")
    play = house.upstream.holds(completion("Done."))
    with agent.raw(play.word):
        play.wait_arrived()
        refused = agent.chat("Hello")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    play.go.set()
    agent.results(1)
    failing = house.upstream.plays(lambda exchange, _: exchange.hang_up())
    for _ in range(3):
        assert agent.chat(failing.word).status_code == 502
    assert agent.chat("nothing", model="nothing").status_code == 404
    assert agent.chat("Hello").status_code == 200


def test_users_have_budgets_of_their_own(make_house: MakesHouse) -> None:
    house = make_house(
        ledger=False, start=False, limits='  users:\n    ada: {budgets: [{window: day, usd: "0.000001"}]}\n'
    )
    gateway: Gateway = house.gateway.start()
    gateway.agent("shared")
    ada, bob = gateway.agent("shared", user="ada"), gateway.agent("shared", user="bob")
    assert ada.chat("Hello").status_code == 402
    assert bob.chat("Hello").status_code == 200
    within(lambda: gateway.spend("user:bob"), "the spend of bob")
    assert set(gateway.spend("user:bob").values()) == {TRUE_NANOUSD}
    assert gateway.spend("user:ada") == {}
