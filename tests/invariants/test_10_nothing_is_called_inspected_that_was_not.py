"""Invariant 10: what a guard, a limit or a policy did not inspect is never reported as inspected."""

from __future__ import annotations

from tests.e2e.fixtures import House
from tests.e2e.upstream import call, chunk, completion, usage


def test_only_the_guards_that_looked_are_named(house: House) -> None:
    agent = house.agent("guarded")
    agent.pay("inspected")
    agent.chat("Hello")
    paid, asked = agent.records("action.intent")
    assert "inspected" in paid["labels"]
    assert "inspected" not in asked["labels"]  # no guard reads prompts yet, so none is named


def test_a_refusal_before_the_policy_shows_no_decision(house: House) -> None:
    agent = house.agent("early")
    agent.post("/v1/chat/completions", b"{")
    agent.chat("Hello", model="no-such-model")
    for record in agent.refusals(2):
        assert record["decision"] is None
        assert "inspected" not in record["labels"]
        assert record["payloads"] == []


def test_a_decision_that_was_not_asked_for_is_not_in_the_headers(house: House) -> None:
    agent = house.agent("headers")
    assert "x-gateway-decision" not in agent.post("/v1/chat/completions", b"{").headers
    assert "x-gateway-decision" not in agent.chat("Hello", model="no-such-model").headers
    assert agent.chat("Hello").headers["x-gateway-decision"] == "allow"


def test_arguments_that_can_not_be_read_are_denied_not_passed_as_inspected(house: House) -> None:
    for arguments in ('{"to": "acme-gmbh", "to": "eve"}', '{"amount_cents": NaN}', "[]", '{"to": "acme', '"text"'):
        for stream in (False, True):
            agent = house.agent("ambiguous")
            if stream:
                proposed = {"index": 0, **call("ledger__transfer", arguments)}
                events = [chunk({"tool_calls": [proposed]}), chunk({}, finish="tool_calls")]
                play = house.upstream.streams(*events, chunk(None, usage=usage(1, 1)))
            else:
                play = house.upstream.answers(completion(None, calls=[call("ledger__transfer", arguments)]))
            answer = agent.chat(play.word, stream=stream)
            assert "was not executed" in answer.text
            assert "tool_calls" not in answer.text
            (refused,) = agent.refusals(1)
            assert refused["decision"]["rules"] == ["proposal_unreadable"]


def test_a_tool_call_spelled_with_escapes_is_still_seen(house: House) -> None:
    """JSON lets every letter be written as an escape; the agent's parser reads it, so the gateway has to."""
    agent = house.agent("escapes")
    hidden = (
        rb'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":'
        rb'"tool_calls","message":{"role":"assistant","content":null,"tool\u005fcalls":[{"id":"c","type":"function",'
        rb'"function":{"na\u006de":"ledger__close_account","arguments":"{}"}}]}}],"usage":null}'
    )
    answer = agent.chat(house.upstream.answers(hidden).word)
    assert not answer.json()["choices"][0]["message"].get("tool_calls")

    def player(exchange: object, _: object) -> None:
        exchange.begin()  # type: ignore[attr-defined]
        exchange.send(  # type: ignore[attr-defined]
            rb'data: {"choices":[{"index":0,"delta":{"tool\u005fcalls":[{"index":0,"id":"c","function":'
            rb'{"name":"ledger__close_account","arguments":"{}"}}]}}]}' + b"\n\n"
        )
        exchange.send(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n')  # type: ignore[attr-defined]
        exchange.end()  # type: ignore[attr-defined]

    streamed = agent.chat(house.upstream.plays(player).word, stream=True).text
    assert "arguments" not in streamed
    assert "calls" not in streamed
    assert len(agent.refusals(2)) == 2
