"""Invariant 7: suspending an agent stops new actions in under a second and ends what its models are answering."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import Agent, Gateway, within
from tests.e2e.upstream import Exchange, Play, chunk, completion

SOON_S = 1.0


def suspend(gateway: Gateway, agent: Agent) -> None:
    answer = gateway.operator("POST", f"/agents/{agent.name}/suspend", {"reason": "a drill"})
    assert answer.status_code == 200, answer.text


def resume(gateway: Gateway, agent: Agent) -> None:
    assert gateway.operator("POST", f"/agents/{agent.name}/resume", {"reason": "over"}).status_code == 200


def endless(exchange: Exchange, play: Play) -> None:
    """One word, and then nothing until the gateway goes away."""
    exchange.begin()
    exchange.event(chunk({"role": "assistant", "content": "one "}))
    play.client_left = exchange.client_left()


def silent(exchange: Exchange, play: Play) -> None:
    """Not even a first byte."""
    play.client_left = exchange.client_left()


def read_all(connection: socket.socket) -> bytes:
    got = b""
    while data := connection.recv(65536):
        got += data
        if got.endswith(b"0\r\n\r\n"):
            break
    return got


def test_suspension_ends_an_open_stream_at_once_and_says_why(house: House) -> None:
    agent = house.agent("streaming")
    play = house.upstream.plays(endless)
    with agent.raw(play.word, stream=True) as connection:
        got = connection.recv(65536)
        while b"one " not in got:
            got += connection.recv(65536)
        began_s = time.monotonic()
        suspend(house.gateway, agent)
        rest = read_all(connection)
        took_s = time.monotonic() - began_s
    assert b'"agent_suspended"' in rest
    assert b"[DONE]" not in rest
    assert took_s < SOON_S
    play.wait_ended()
    assert play.client_left  # paying stopped too
    (result,) = agent.results(1)
    assert (result["result"]["status"], result["result"]["code"]) == ("cancelled", "agent_suspended")
    assert result["cost"]["estimated"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_suspension_ends_a_call_that_still_waits_for_its_first_byte(house: House, *, stream: bool) -> None:
    agent = house.agent("waiting")
    play = house.upstream.plays(silent)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(agent.chat, play.word, stream=stream)
        play.wait_arrived()
        began_s = time.monotonic()
        suspend(house.gateway, agent)
        answer = asked.result()
    assert time.monotonic() - began_s < SOON_S
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "agent_suspended")
    play.wait_ended()
    assert play.client_left
    (result,) = agent.results(1)
    assert (result["result"]["status"], result["result"]["code"]) == ("cancelled", "agent_suspended")


def test_a_client_that_takes_nothing_can_not_hold_up_the_kill_switch(house: House) -> None:
    agent = house.agent("stuffed")

    def flood(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        try:
            for _ in range(2000):
                exchange.event(chunk({"content": "x" * 30_000}))
        except OSError:
            play.client_left = True

    play = house.upstream.plays(flood)
    with agent.raw(play.word, stream=True, receive_buffer=4096) as connection:
        assert connection.recv(1000)
        metric = "gateway_streams_open"
        within(lambda: metric in house.gateway.get("/metrics").text, "the metrics")
        suspend(house.gateway, agent)
        (result,) = agent.results(1)  # although the client still holds its connection and reads nothing
        assert (result["result"]["status"], result["result"]["code"]) == ("cancelled", "agent_suspended")
    play.wait_ended()
    assert play.client_left


def test_a_suspended_agent_gets_nothing_through_any_door_and_each_try_is_recorded(house: House) -> None:
    agent = house.agent("out")
    suspend(house.gateway, agent)
    assert agent.chat("Hello").json()["error"]["code"] == "agent_suspended"
    assert agent.chat("Hello", stream=True).status_code == 403
    with agent.client() as client:
        assert client.get("/v1/models").status_code == 403
    told = agent.pay("suspended")
    assert "suspended" in str(told)
    assert house.ledger.transfers("suspended") == 0
    assert {record["result"]["code"] for record in agent.refusals(4)} == {"agent_suspended"}
    resume(house.gateway, agent)
    assert agent.chat("Hello").status_code == 200


def test_a_tool_call_in_flight_finishes_and_what_it_did_is_on_record(make_house: MakesHouse) -> None:
    house = make_house("delay:transfer:1.0")
    agent = house.gateway.agent("payer")
    with ThreadPoolExecutor(1) as pool:
        hold = house.wire.hold_sent(b"in-flight")
        paying = pool.submit(agent.pay, "in-flight")
        hold.wait_reached()
        suspend(house.gateway, agent)
        hold.release()
        assert "result" in paying.result()
    assert house.ledger.transfers("in-flight") == 1
    assert agent.results(1)[0]["result"]["status"] == "succeeded"
    assert "suspended" in str(agent.pay("after"))


def test_neither_a_reload_nor_a_restart_lifts_a_suspension(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    made, declared = gateway.agent("made"), gateway.agent("reader")  # one by the API, one from gateway.yaml
    for agent in (made, declared):
        assert agent.chat("Hello").status_code == 200
        suspend(gateway, agent)
    gateway.config.write_text(gateway.config.read_text().replace("team: e2e", "team: other"))
    assert gateway.operator("POST", "/reload").status_code == 200
    assert [agent.chat("Hello").status_code for agent in (made, declared)] == [403, 403]
    gateway.kill()
    gateway.start()
    assert [agent.chat("Hello").status_code for agent in (made, declared)] == [403, 403]
    for agent in (made, declared):
        resume(gateway, agent)
        assert agent.chat("Hello").status_code == 200


def test_an_agent_taken_out_of_the_configuration_is_out(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    reader = gateway.agent("reader")
    assert reader.chat("Hello").status_code == 200
    text = gateway.config.read_text()
    start = text.index("agents:\n  - {id: reader")
    end = text.index("limits:\n")
    gateway.config.write_text(text[:start] + "agents: []\n" + text[end:])
    assert gateway.operator("POST", "/reload").status_code == 200
    assert reader.chat("Hello").status_code in (401, 403)


def test_a_revoked_key_stops_working_at_once(house: House) -> None:
    agent = house.agent("revoked")
    assert agent.chat("Hello").status_code == 200
    keys = house.gateway.operator("GET", f"/agents/{agent.name}/keys").json()
    assert house.gateway.operator("DELETE", f"/agents/{agent.name}/keys/{keys[0]['id']}").status_code == 200
    assert agent.chat("Hello").status_code == 401


def test_a_suspended_agents_proposals_are_not_released(house: House) -> None:
    """The answer is there already, and its tool call is being decided when the switch falls: it goes nowhere."""
    agent = house.agent("late")
    play = house.upstream.holds(completion("Too late."))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(agent.chat, play.word)
        play.wait_arrived()
        suspend(house.gateway, agent)
        play.go.set()
        assert asked.result().status_code == 403
