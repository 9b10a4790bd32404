"""litellm as a library, its network played by a server of ours: dialect, failures, and what never reaches it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.actions import ModelTarget, Reply, Usage
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.upstreams import longtail
from gateway.upstreams.credential import Credential
from gateway.upstreams.longtail import LongTailProvider
from gateway.upstreams.retries import Retries
from tests.upstreams.origin import CHUNKED, END, Exchange, Origin, always, chunk, ok

# litellm makes pydantic warn of its own models and calls; nothing of ours can change that.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*model_(computed_)?fields.*:DeprecationWarning"),
]

KEY = "sk-test-Zz9secretsecret"
TARGET = ModelTarget(alias="a", provider="tail", model="mock")
JSON = b"content-type: application/json"
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 12},
}


def answer(message: dict[str, Any], finish: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "mock", "choices": [choice], "usage": USAGE}
    return ok(json.dumps(body).encode(), JSON)


def event(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": choices, **more}
    return chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


class Tail:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def provider(self, url: str, retries: int = 0, **params: Any) -> LongTailProvider:
        return LongTailProvider(
            "tail",
            prefix="openai/",
            credential=Credential("env:K", lambda _: KEY, of="model provider tail"),
            params={"api_base": url + "/v1", **params},
            retries=Retries(retries, clock=self.clock, jitter=lambda: 0.0, sleep=self.sleep),
            clock=self.clock,
            idle_timeout_s=5,
        )

    async def ask(self, url: str, retries: int = 0, **fields: Any) -> Reply:
        body = json.dumps({"model": "mock", "messages": MESSAGES, **fields}).encode()
        reply = await self.provider(url, retries).invoke(TARGET, body, stream=False, request_id="r")
        assert isinstance(reply, Reply)
        return reply

    async def refusal(self, url: str, retries: int = 0, **fields: Any) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.ask(url, retries, **fields)
        told = f"{caught.value.message} {caught.value.detail}"
        assert KEY not in told
        assert "127.0.0.1" not in told
        assert "litellm." not in told
        return caught.value

    async def stream(self, url: str, **fields: Any) -> list[bytes]:
        body = json.dumps({"model": "mock", "messages": MESSAGES, **fields}).encode()
        stream = await self.provider(url).invoke(TARGET, body, stream=True, request_id="r")
        assert not isinstance(stream, Reply)
        try:
            return [one async for one in stream]
        finally:
            await stream.aclose()


@pytest.fixture
async def tail() -> AsyncIterator[Tail]:
    yield Tail()
    await longtail.close_clients()


async def test_a_tool_call_comes_back_in_openai_s_dialect(tail: Tail) -> None:
    async with Origin(always(answer({"content": None, "tool_calls": [CALL]}, "tool_calls"))) as origin:
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        reply = await tail.ask(origin.url, tools=tools, temperature=0.5)
    message = json.loads(reply.body)["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [CALL]
    assert reply.usage == Usage(input_tokens=30, output_tokens=7, cached_input_tokens=12)
    [request] = origin.requests
    assert request.header("authorization") == f"Bearer {KEY}"
    sent = json.loads(request.body)
    assert (sent["model"], sent["tools"], sent["temperature"]) == ("mock", tools, 0.5)


async def test_an_answer_that_repeats_our_key_comes_back_without_it(tail: Tail) -> None:
    async with Origin(always(answer({"content": f"you sent {KEY}"}, "stop"))) as origin:
        reply = await tail.ask(origin.url)
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == "you sent [redacted]"


async def test_a_stream_comes_back_as_openai_s_events(tail: Tail) -> None:
    first = {"index": 0, **CALL, "function": {"name": "f", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"a":1}'}}
    raw = (
        CHUNKED
        + event({"role": "assistant", "content": "hel"})
        + event({"content": "lo"})
        + event({"tool_calls": [first]})
        + event({"tool_calls": [rest]})
        + event({}, "tool_calls")
        + event(None, usage=USAGE)
        + chunk(b"data: [DONE]\n\n")
        + END
    )
    async with Origin(always(raw)) as origin:
        events = await tail.stream(origin.url, stream_options={"include_usage": True})
    assert all(one.startswith(b"data: ") and one.endswith(b"\n\n") for one in events)
    assert events[-1] == b"data: [DONE]\n\n"
    chunks = [json.loads(one[6:]) for one in events[:-1]]
    deltas = [choice["delta"] for one in chunks for choice in one["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "hello"
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("c1", "f")
    assert "".join(call["function"]["arguments"] for call in calls) == '{"a":1}'
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] == 30
    finishes = [choice["finish_reason"] for one in chunks for choice in one["choices"] if choice["finish_reason"]]
    assert finishes == ["tool_calls"]


@pytest.mark.parametrize(
    "field",
    [
        {"api_base": "http://evil.example/v1"},
        {"base_url": "http://evil.example/v1"},
        {"api_key": "mine"},
        {"mock_response": "anything"},
        {"custom_llm_provider": "anthropic"},
        {"extra_headers": {"x": "y"}},
        {"extra_body": {"azure_ad_token": "x"}},
        {"fallbacks": ["gpt-4"]},
        {"aws_bedrock_runtime_endpoint": "http://evil.example"},
        {"metadata": {"a": "b"}},
        {"num_retries": 5},
        {"x_unknown": 1},
    ],
)
async def test_no_field_of_an_agent_gives_orders_to_litellm(tail: Tail, field: dict[str, Any]) -> None:
    async with Origin(always(answer({"content": "x"}, "stop"))) as origin:
        refusal = await tail.refusal(origin.url, **field)
        assert origin.connections == 0
    assert refusal.code == "malformed"
    assert refusal.detail["param"] in field


async def test_an_agent_s_fields_go_before_the_operator_s_defaults_but_orders_stay(tail: Tail) -> None:
    async with Origin(always(answer({"content": "x"}, "stop"))) as origin:
        provider = tail.provider(origin.url, temperature=0.1, seed=7)
        body = json.dumps({"messages": MESSAGES, "temperature": 0.9}).encode()
        await provider.invoke(TARGET, body, stream=False, request_id="r")
    sent = json.loads(origin.requests[0].body)
    assert (sent["temperature"], sent["seed"]) == (0.9, 7)


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "HTTPS://inner/x.png", " http://a/", "file:///etc/passwd", "gs://b/o"]
)
async def test_litellm_is_never_made_to_fetch_a_url(tail: Tail, url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    text = {"type": "text", "text": "see https://example.com"}
    async with Origin(always(answer({"content": "x"}, "stop"))) as origin:
        refusal = await tail.refusal(origin.url, messages=[{"role": "user", "content": [text, part]}])
        assert refusal.code == "malformed"
        await tail.ask(origin.url, messages=[{"role": "user", "content": [text]}])
        assert len(origin.requests) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_what_is_no_request_is_malformed(tail: Tail, body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        await tail.provider("http://127.0.0.1:1").invoke(TARGET, body, stream=False, request_id="r")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("status", "code", "http_status"),
    [
        (b"400 Bad", "upstream_failed", 400),
        (b"401 No", "upstream_failed", 502),
        (b"403 No", "upstream_failed", 502),
        (b"404 No", "upstream_failed", 404),
        (b"422 Un", "upstream_failed", 422),
        (b"429 Sl", "rate_limited", 429),
        (b"500 Oo", "upstream_failed", 502),
        (b"503 Bu", "upstream_failed", 502),
    ],
)
async def test_failures_are_told_as_the_native_adapter_tells_them(
    tail: Tail, status: bytes, code: str, http_status: int
) -> None:
    told = json.dumps({"error": {"message": f"it broke {KEY} at http://10.0.0.1/x", "type": "t", "code": "c"}}).encode()
    async with Origin(always(ok(told, JSON, b"retry-after: 7", status=status))) as origin:
        refusal = await tail.refusal(origin.url)
        assert len(origin.requests) == 1
    assert (refusal.code, refusal.http_status, refusal.detail["answered"]) == (code, http_status, "yes")
    assert "10.0.0.1" not in refusal.message
    assert ("it broke" in refusal.message) == (status[:3] not in (b"401", b"403"))
    assert refusal.retry_after_s == (7 if code == "rate_limited" else None)


async def test_a_passing_failure_is_asked_again_by_us_and_not_by_litellm(tail: Tail) -> None:
    async with Origin(always(ok(b'{"error":{"message":"busy"}}', JSON, status=b"503 Busy"))) as origin:
        await tail.refusal(origin.url, retries=2)
        assert len(origin.requests) == 3
    assert tail.slept == [0.5, 1.0]


async def test_a_server_that_drops_the_request_may_have_worked_on_it(tail: Tail) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()

    async with Origin(play) as origin:
        refusal = await tail.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1
    assert refusal.code == "upstream_failed"
    assert refusal.detail == {"provider": "tail", "dispatched": "unknown"}


async def test_silence_is_a_timeout(tail: Tail) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.hung_up()

    async with Origin(play) as origin:
        provider = tail.provider(origin.url)
        await provider.warm()
        provider._head_timeout_s = 0.2
        with pytest.raises(Refusal) as caught:
            await provider.invoke(TARGET, json.dumps({"messages": MESSAGES}).encode(), stream=False, request_id="r")
    assert caught.value.code == "upstream_timeout"


async def test_a_stream_that_breaks_is_a_refusal(tail: Tail) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + event({"role": "assistant", "content": "hel"}))

    async with Origin(play) as origin:
        with pytest.raises(Refusal) as caught:
            await tail.stream(origin.url)
    assert caught.value.code in ("upstream_failed", "upstream_timeout")
