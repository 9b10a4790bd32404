"""Invariant 11: unknown fields in a client's request and an upstream's answer survive the way through."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.fixtures import House
from tests.e2e.upstream import Exchange, Play, call, chunk, completion, usage

STRANGE: dict[str, Any] = {
    "vendor_extension": {"nested": [1, 2.5, None, True, "é\u2028\U0001f600"], "empty": {}},
    "metadata": {"k": "v"},
    "seed": 7,
    "top_k": 40,
    "logit_bias": {"50256": -100},
    "big": 12345678901234567890,
}


def test_a_models_request_keeps_what_the_gateway_does_not_know(house: House) -> None:
    agent = house.agent("strange")
    play = house.upstream.answers(completion("Hello"))
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}, "strict": True, "x-vendor": 1}}]
    messages = [{"role": "user", "content": play.word, "name": "ada", "x-cache": {"type": "ephemeral"}}]
    with agent.client() as client:
        body = {"model": "up", "messages": messages, "tools": tools, **STRANGE}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    sent = play.received[0].body
    assert sent == {**body, "model": "up-served", "max_tokens": 100}
    # In the order they came, and last what the gateway controls: a reader that takes another key for it ends with ours.
    assert list(sent) == ["messages", "tools", *STRANGE, "max_tokens", "model"]


def test_a_models_answer_keeps_what_the_gateway_does_not_know(house: House) -> None:
    agent = house.agent("strange")
    whole = completion("Hello", system_fingerprint="fp", x_vendor=STRANGE)
    whole["choices"][0]["message"] |= {"reasoning_content": "Hm.", "annotations": [{"x": 1}], "audio": None}
    whole["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3, "x": 1}
    raw = json.dumps(whole).encode()
    answer = agent.chat(house.upstream.answers(raw).word)
    assert answer.content == raw  # not only the same fields: the same bytes


def test_an_answer_that_is_rewritten_keeps_them_too(house: House) -> None:
    agent = house.agent("strange")
    calls = [call("ledger__get_balance", {}, "a"), call("ledger__close_account", {}, "b")]
    calls[0] |= {"x_vendor": STRANGE}
    whole = completion("So:", calls=calls, x_vendor=STRANGE)
    whole["choices"][0]["message"]["reasoning_content"] = "Hm."
    told = agent.chat(house.upstream.answers(whole).word).json()
    message = told["choices"][0]["message"]
    assert message["tool_calls"] == [calls[0]]
    assert message["reasoning_content"] == "Hm."
    assert message["content"].startswith("So:")
    assert told["x_vendor"] == STRANGE
    assert told["usage"] == whole["usage"]


def test_a_stream_keeps_them_in_text_and_in_tool_calls(house: House) -> None:
    agent = house.agent("strange")
    proposed = {"index": 0, **call("ledger__get_balance", {}), "x_vendor": STRANGE}
    events = [
        chunk({"role": "assistant", "content": "", "x_delta": STRANGE}, x_vendor=STRANGE),
        chunk({"reasoning_content": "Hm."}, obfuscation="aaaa"),
        chunk({"tool_calls": [proposed]}, x_vendor=STRANGE),
        chunk({}, finish="tool_calls", x_vendor=1),
        chunk(None, usage={**usage(10, 5), "x": 1}),
    ]

    def player(exchange: Exchange, _: Play) -> None:
        exchange.begin()
        exchange.send(b": keep-alive\n\nevent: message\nid: 7\ndata: " + json.dumps(events[0]).encode() + b"\n\n")
        for event in events[1:]:
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    answer = agent.chat(house.upstream.plays(player).word, stream=True, stream_options={"include_usage": True})
    lines = answer.text.split("\n")  # not splitlines: U+2028 is no end of a line here
    assert ":" in lines  # the comment keeps the connection open; what it says, and other framing, does not go through
    assert "id: 7" not in lines
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert data == events
    assert "data: [DONE]" in lines


def test_a_tool_call_and_its_answer_keep_them_through_mcp(house: House) -> None:
    agent = house.agent("strange")
    reference = f"strange-{agent.name}"
    before = len(house.wire.sent)
    arguments = {"to": "acme-gmbh", "amount_cents": 1, "reference": reference}
    told = agent.tool("transfer", arguments, **{"com.example/vendor": {"a": [1, "é"]}, "progressToken": "p"})
    sent = bytes(house.wire.sent[before:])
    assert b'"com.example/vendor":{"a":[1,"\xc3\xa9"]}' in sent.replace(b": ", b":").replace(b", ", b",")
    assert told["result"]["structuredContent"]["transfer_id"]
    assert told["result"]["_meta"]  # what the ledger attached of its own
