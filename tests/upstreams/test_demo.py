"""The scripted provider: the quickstart's loop, both ways of answering, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.actions import ModelTarget, Reply
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.upstreams import demo_script
from gateway.upstreams.demo import DemoProvider

TARGET = ModelTarget(alias="demo", provider="demo", model="demo")
LEDGER = ("get_balance", "list_payees", "transfer")


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]


def provider(script: Path | None = None, slept: list[float] | None = None) -> DemoProvider:
    found, problems = demo_script.load(script)
    assert problems == []
    assert found is not None
    numbers = itertools.count(1)

    async def sleep(seconds: float) -> None:
        if slept is not None and seconds:
            slept.append(seconds)
        await asyncio.sleep(0)

    clock = ManualClock(1_700_000_000_000_000_000)
    return DemoProvider("demo", found, clock=clock, new_id=lambda: str(next(numbers)), sleep=sleep)


async def ask(model: DemoProvider, request: dict[str, Any]) -> dict[str, Any]:
    reply = await model.invoke(TARGET, json.dumps(request).encode(), stream=False, request_id="r")
    assert isinstance(reply, Reply)
    answer: dict[str, Any] = json.loads(reply.body)
    assert reply.usage is not None
    assert answer["usage"]["prompt_tokens"] == reply.usage.input_tokens
    assert answer["usage"]["completion_tokens"] == reply.usage.output_tokens
    return answer


async def ask_streaming(model: DemoProvider, request: dict[str, Any]) -> list[dict[str, Any]]:
    stream = await model.invoke(TARGET, json.dumps(request).encode(), stream=True, request_id="r")
    assert not isinstance(stream, Reply)
    events = [event async for event in stream]
    await stream.aclose()
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in events)
    assert events[-1] == b"data: [DONE]\n\n"
    return [json.loads(event[6:]) for event in events[:-1]]


def user(text: Any, offered: tuple[str, ...] = LEDGER, **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "tools": tools(*offered), **more}


def proposed(answer: dict[str, Any]) -> tuple[str, Any] | None:
    message = answer["choices"][0]["message"]
    if "tool_calls" not in message:
        return None
    [call] = message["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def pay(to: str, cents: int, reference: str = "quickstart") -> tuple[str, dict[str, Any]]:
    return "transfer", {"to": to, "amount_cents": cents, "reference": reference}


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("What is the balance?", ("get_balance", {})),
        ("what's my account balance", ("get_balance", {})),
        ("List the payees, please", ("list_payees", {})),
        ("Who can I pay?", ("list_payees", {})),
        ("Pay 25 EUR to acme-gmbh", pay("acme-gmbh", 2500)),
        ("pay 25 usd to acme-gmbh.", pay("acme-gmbh", 2500)),
        ("Please pay €12.50 to city-utilities", pay("city-utilities", 1250)),
        ("Pay $0.99 to north-supplies", pay("north-supplies", 99)),
        ("Send 7,5 euros to Acme-GmbH", pay("acme-gmbh", 750)),
        ("transfer 2500 cents to acme-gmbh", pay("acme-gmbh", 2500)),
        ("Transfer 1 cent to mallory", pay("mallory", 1)),
        ("Transfer 150 EUR to acme-gmbh, reference: invoice 4711", pay("acme-gmbh", 15000, "invoice 4711")),
        ("Pay acme-gmbh 25 EUR", pay("acme-gmbh", 2500)),
        ([{"type": "text", "text": "What is the balance?"}], ("get_balance", {})),
        ("Hello", None),
        ("Pay attention to me", None),
        ("Close the account", None),
    ],
)
async def test_the_quickstart_understands_a_newcomer(text: Any, call: tuple[str, Any] | None) -> None:
    assert proposed(await ask(provider(), user(text))) == call


async def test_tools_are_known_under_their_server_s_name_too() -> None:
    answer = await ask(provider(), user("What is the balance?", ("ledger__get_balance",)))
    assert proposed(answer) == ("ledger__get_balance", {})


async def test_nothing_is_proposed_that_was_not_offered() -> None:
    for request in (
        user("What is the balance?", ()),
        user("Pay 25 EUR to acme-gmbh", ("get_balance",)),
        user("What is the balance?", tool_choice="none"),
    ):
        answer = await ask(provider(), request)
        assert proposed(answer) is None
        assert "scripted model" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_whole_tool_loop_ends_in_a_sentence_with_the_result(streaming: bool) -> None:
    model = provider()
    request = user("What is the balance?")
    if streaming:
        [call] = joined(await ask_streaming(model, request))["tool_calls"]
    else:
        [call] = (await ask(model, request))["choices"][0]["message"]["tool_calls"]
    request["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": '{"balance_cents": 1000000}'},
    ]
    if streaming:
        text = joined(await ask_streaming(model, request))["content"]
    else:
        text = (await ask(model, request))["choices"][0]["message"]["content"]
    assert text == 'The tool get_balance answered: {"balance_cents": 1000000}'
    request["messages"] += [
        {"role": "assistant", "content": text},
        {"role": "user", "content": "Pay 1 EUR to acme-gmbh"},
    ]
    assert proposed(await ask(model, request)) == pay("acme-gmbh", 100)


def joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of the deltas."""
    message: dict[str, Any] = {"content": "", "tool_calls": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            for part in delta.get("tool_calls", ()):
                if part["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({key: value for key, value in part.items() if key != "index"})
                else:
                    known = message["tool_calls"][part["index"]]["function"]
                    known["arguments"] += part["function"]["arguments"]
    return message


@pytest.mark.parametrize("text", ["Hello", "Pay 25 EUR to acme-gmbh"])
async def test_a_stream_says_the_same_as_a_whole_answer(text: str) -> None:
    whole = (await ask(provider(), user(text)))["choices"][0]
    chunks = await ask_streaming(provider(), user(text))
    message = joined(chunks)
    assert message["content"] == (whole["message"]["content"] or "")
    assert message["tool_calls"] == whole["message"].get("tool_calls", [])
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert [chunk["object"] for chunk in chunks] == ["chat.completion.chunk"] * len(chunks)
    assert len(chunks) > 5
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_the_arguments_of_a_call_come_in_several_deltas() -> None:
    chunks = await ask_streaming(provider(), user("Pay 25 EUR to acme-gmbh"))
    with_arguments = [
        chunk for chunk in chunks if chunk["choices"][0]["delta"].get("tool_calls", [{}])[0].get("function")
    ]
    assert len(with_arguments) > 3


async def test_usage_ends_a_stream_only_where_it_was_asked_for() -> None:
    plain = await ask_streaming(provider(), user("Hello"))
    assert not any("usage" in chunk for chunk in plain)
    asked = await ask_streaming(provider(), user("Hello", stream_options={"include_usage": True}))
    assert [chunk["usage"] for chunk in asked[:-1]] == [None] * (len(asked) - 1)
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"] == (await ask(provider(), user("Hello")))["usage"]


async def test_an_answer_has_the_shape_that_clients_expect() -> None:
    answer = await ask(provider(), user("Pay 1 EUR to acme-gmbh", x_unknown={"a": 1}))
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["created"] == 1_700_000_000
    assert answer["model"] == "demo"
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"] is None
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


async def test_equal_requests_cost_equal_tokens_and_longer_ones_more() -> None:
    one, same = await ask(provider(), user("Hello")), await ask(provider(), user("Hello"))
    longer = await ask(provider(), user("Hello " * 100))
    assert one["usage"] == same["usage"]
    assert longer["usage"]["prompt_tokens"] > one["usage"]["prompt_tokens"]


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("text", ["Hello", "Pay 25 EUR to acme-gmbh"])
async def test_it_never_says_more_than_it_may(key: str, text: str) -> None:
    answer = await ask(provider(), {**user(text), key: 5})
    assert answer["usage"]["completion_tokens"] <= 5
    assert answer["choices"][0]["finish_reason"] == "length"
    assert proposed(answer) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"messages":[]}',
        b'{"messages":[1]}',
        b'{"messages":"x"}',
        b'{"messages":[{"content":"x"}]}',
        b'{"messages":[{"role":"user","content":[1]}]}',
        b'{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"tools":{"a":1}}',
    ],
)
async def test_what_is_no_chat_completion_is_malformed(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        await provider().invoke(TARGET, body, stream=False, request_id="r")
    assert caught.value.code == "malformed"


async def test_closing_a_stream_ends_it() -> None:
    stream = await provider().invoke(TARGET, json.dumps(user("Hello")).encode(), stream=True, request_id="r")
    assert not isinstance(stream, Reply)
    await anext(aiter(stream))
    await stream.aclose()
    assert [event async for event in stream] == []


async def test_delays_are_those_of_the_script(tmp_path: Path) -> None:
    script = tmp_path / "slow.yaml"
    script.write_text("version: 1\nrules:\n  - {say: one two three four, delay_s: 2.0, chunk_delay_s: 0.5}\n")
    slept: list[float] = []
    chunks = await ask_streaming(provider(script, slept), user("x"))
    assert slept == [2.0] + [0.5] * len(chunks)
