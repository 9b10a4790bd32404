"""The native adapter against a server that plays a provider: what is sent, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import known_secrets
from gateway.actions import ModelTarget, Reply, ReplyStream, Usage
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.upstreams.credential import Credential
from gateway.upstreams.openai import OpenAiProvider
from gateway.upstreams.retries import Retries
from gateway.upstreams.wire import Wire
from gateway.usage import usage_of_answer
from tests.upstreams.origin import CHUNKED, END, Exchange, Origin, Player, always, chunk, ok

KEY = "sk-proj-Zz9secretsecretsecret"
TARGET = ModelTarget(alias="fast", provider="openai", model="gpt-x")
JSON = b"content-type: application/json"
ANSWER = (
    b'{"id":"1","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":7,"total_tokens":37,'
    b'"prompt_tokens_details":{"cached_tokens":12,"x":0}},"x_unknown":{"kept":[1.50,true]}}'
)


class House:
    """A provider and what it was given: a clock that its sleeps move on, and keys that change."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.clock = ManualClock(1_700_000_000_000_000_000)
        self.keys = [KEY]
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    def provider(self, url: str, retries: int = 0, **more: Any) -> OpenAiProvider:
        return OpenAiProvider(
            "acme",
            base_url=url + "/v1/",
            credential=Credential("env:K", lambda _: self.keys.pop(0), of="model provider acme"),
            transport=self.wire,
            retries=Retries(retries, clock=self.clock, jitter=lambda: 0.5, sleep=self.sleep),
            clock=self.clock,
            **more,
        )

    async def ask(self, url: str, retries: int = 0, **more: Any) -> Reply:
        reply = await self.provider(url, retries, **more).invoke(TARGET, b"{}", stream=False, request_id="r1")
        assert isinstance(reply, Reply)
        return reply

    async def refusal(self, url: str, retries: int = 0, **more: Any) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.ask(url, retries, **more)
        told = f"{caught.value.message} {caught.value.detail}"
        assert KEY not in told
        assert "127.0.0.1" not in told
        return caught.value

    async def stream(self, url: str, **more: Any) -> ReplyStream:
        stream = await self.provider(url, **more).invoke(TARGET, b"{}", stream=True, request_id="r1")
        assert not isinstance(stream, Reply)
        return stream


@pytest.fixture
async def house() -> AsyncIterator[House]:
    wire = Wire()
    yield House(wire)
    await wire.aclose()


def in_turn(*answers: bytes) -> Player:
    """Each request, on whatever connection, gets the next answer; b"" drops the connection."""
    left = list(answers)

    async def play(exchange: Exchange) -> None:
        while True:
            await exchange.request()
            answer = left.pop(0)
            if not answer:
                return
            await exchange.send(answer)

    return play


def error(status: bytes, *headers: bytes, **told: Any) -> bytes:
    return ok(json.dumps({"error": told}).encode(), JSON, *headers, status=status)


# ------------------------------------------------------------ what passes


async def test_the_body_goes_out_as_it_is_with_our_key_and_few_headers(house: House) -> None:
    body = b'{"model":"gpt-x", "messages":[],"x_new":1.0}'
    async with Origin(always(ok(ANSWER, JSON))) as origin:
        provider = house.provider(origin.url, headers={"OpenAI-Organization": "org-1"})
        await provider.invoke(TARGET, body, stream=False, request_id="r1")
    [request] = origin.requests
    assert request.body == body
    assert request.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("accept-encoding") == "identity"
    assert request.header("openai-organization") == "org-1"
    assert request.header("x-client-request-id") == "r1"
    names = {line.split(b":")[0] for line in request.head.split(b"\r\n")[1:-2]}
    assert len(names) == 8


async def test_an_answer_comes_back_byte_for_byte_with_its_usage_read(house: House) -> None:
    async with Origin(always(ok(ANSWER, JSON))) as origin:
        reply = await house.ask(origin.url)
    assert reply.body == ANSWER
    assert reply.usage == Usage(input_tokens=30, output_tokens=7, cached_input_tokens=12)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (b"null", None),
        (b'{"prompt_tokens":3,"completion_tokens":1}', Usage(input_tokens=3, output_tokens=1)),
        (
            b'{"prompt_tokens":3,"completion_tokens":1,"prompt_tokens_details":null}',
            Usage(input_tokens=3, output_tokens=1),
        ),
        (
            b'{"prompt_tokens":3,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":null}}',
            Usage(input_tokens=3, output_tokens=1),
        ),
        (
            b'{"prompt_tokens":3,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":3}}',
            Usage(input_tokens=3, output_tokens=1, cached_input_tokens=3),
        ),
        (b'{"prompt_tokens":-3,"completion_tokens":1}', None),
        (b'{"prompt_tokens":"3","completion_tokens":1}', None),
        (b'{"prompt_tokens":3}', None),
        (b"[]", None),
    ],
)
def test_usage_is_believed_only_in_its_own_shape(usage: bytes, expected: Usage | None) -> None:
    assert usage_of_answer(b'{"choices":[],"usage":' + usage + b"}") == expected


def test_an_answer_without_usage_has_none() -> None:
    assert usage_of_answer(b'{"choices":[]}') is None


async def test_a_stream_passes_on_what_arrives_as_it_arrives(house: House) -> None:
    events = [b'data: {"n":%d}\n\n' % i for i in range(4)] + [b"data: [DONE]\n\n"]
    seen = asyncio.Queue[bytes]()

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED)
        for event in events:
            await exchange.send(chunk(event))
            assert await asyncio.wait_for(seen.get(), 5) == event
        await exchange.send(END)

    async with Origin(play) as origin:
        stream = await house.stream(origin.url)
        assert (stream.status, stream.headers) == (200, {"content-type": "text/event-stream"})
        async for piece in stream:
            seen.put_nowait(piece)
        await stream.aclose()
    assert origin.requests[0].header("accept") == "text/event-stream"


async def test_closing_a_stream_stops_the_provider(house: House) -> None:
    stopped = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + chunk(b"data: 1\n\n"))
        await exchange.hung_up()
        stopped.set()

    async with Origin(play) as origin:
        stream = await house.stream(origin.url)
        assert await anext(aiter(stream)) == b"data: 1\n\n"
        await stream.aclose()
        await asyncio.wait_for(stopped.wait(), 5)


# ------------------------------------------------------------ what the provider refuses


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_the_agents_own_mistakes_keep_status_and_message(house: House, status: int) -> None:
    told = {"message": "No such parameter: foo.", "type": "invalid_request_error", "param": "foo", "code": "unknown"}
    async with Origin(always(error(b"%d Bad" % status, **told))) as origin:
        refusal = await house.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1
    assert (refusal.code, refusal.http_status) == ("upstream_failed", status)
    assert "No such parameter: foo." in refusal.message
    assert refusal.detail["param"] == "foo"
    assert refusal.detail["answered"] == "yes"


@pytest.mark.parametrize("status", [401, 403])
async def test_our_credential_is_never_the_agents_problem(house: House, status: int) -> None:
    async with Origin(always(error(b"%d No" % status, message=f"Incorrect API key provided: {KEY}"))) as origin:
        refusal = await house.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1
    assert (refusal.code, refusal.http_status) == ("upstream_failed", 502)
    assert "gateway's own credential" in refusal.message


async def test_a_rotated_key_is_read_again_after_a_401(house: House) -> None:
    house.keys = ["old-key", "new-key"]
    async with Origin(in_turn(error(b"401 No", message="no"), ok(ANSWER, JSON))) as origin:
        provider = house.provider(origin.url)
        with pytest.raises(Refusal):
            await provider.invoke(TARGET, b"{}", stream=False, request_id="r")
        await provider.invoke(TARGET, b"{}", stream=False, request_id="r")
    assert [request.header("authorization") for request in origin.requests] == ["Bearer old-key", "Bearer new-key"]


@pytest.mark.parametrize("key", ["", "a\r\nx-evil: 1", "schlüssel"])
async def test_a_damaged_key_is_refused_before_anything_is_sent(house: House, key: str) -> None:
    house.keys = [key]
    async with Origin(always(ok(ANSWER, JSON))) as origin:
        refusal = await house.refusal(origin.url)
        assert origin.connections == 0
    assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_failed", "no")


async def test_throttling_tells_the_agent_when_to_come_back(house: House) -> None:
    async with Origin(always(error(b"429 Slow", b"retry-after: 41.2", message="Slow down"))) as origin:
        refusal = await house.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1  # longer than we wait ourselves
    assert (refusal.code, refusal.http_status, refusal.retry_after_s) == ("rate_limited", 429, 42)


async def test_an_exhausted_account_of_ours_is_not_throttling(house: House) -> None:
    async with Origin(always(error(b"429 No", message="You exceeded your quota", code="insufficient_quota"))) as origin:
        refusal = await house.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1
    assert (refusal.code, refusal.http_status) == ("upstream_failed", 502)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>proxy at http://10.0.0.7:8080 says no</html>",
        b'{"error":{"message":{"nested":1},"code":7}}',
        b'[{"error":{"message":"wrapped"}}]',
        b'{"error":"a string"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
)
async def test_an_error_in_any_shape_is_a_refusal(house: House, body: bytes) -> None:
    async with Origin(always(ok(body, status=b"500 Oops"))) as origin:
        refusal = await house.refusal(origin.url)
    assert (refusal.code, refusal.http_status) == ("upstream_failed", 502)
    assert "10.0.0.7" not in refusal.message


async def test_a_redirect_is_not_followed(house: House) -> None:
    async with Origin(always(ok(b"", b"location: http://evil.example/", status=b"307 Go"))) as origin:
        refusal = await house.refusal(origin.url)
    assert refusal.code == "upstream_failed"
    assert "evil.example" not in refusal.message


async def test_the_provider_s_own_timeout_is_a_timeout(house: House) -> None:
    async with Origin(always(ok(b"", status=b"504 Late"))) as origin:
        refusal = await house.refusal(origin.url)
    assert (refusal.code, refusal.http_status) == ("upstream_timeout", 504)


# ------------------------------------------------------------ what can't be understood


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"<html>", b"content-type: text/html"),
        ok(b"[1]", JSON),
        ok(b'{"a":', JSON),
        ok(b"", JSON),
        ok(b"\x1f\x8b\x08", JSON, b"content-encoding: gzip"),
    ],
)
async def test_a_success_that_is_no_answer_is_refused_and_may_have_cost_money(house: House, answer: bytes) -> None:
    async with Origin(always(answer)) as origin:
        refusal = await house.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1
    assert refusal.code == "upstream_failed"
    assert refusal.detail.get("answered") != "yes"
    assert refusal.detail["dispatched"] == "unknown"


async def test_a_stream_that_is_none_is_refused(house: House) -> None:
    """Nothing would look for tool calls in it."""
    async with Origin(always(ok(ANSWER, JSON))) as origin:
        with pytest.raises(Refusal, match="not an event stream"):
            await house.stream(origin.url)


async def test_a_stream_that_breaks_is_a_refusal_after_what_came(house: House) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + chunk(b"data: 1\n\n"))

    async with Origin(play) as origin:
        stream = await house.stream(origin.url)
        pieces = aiter(stream)
        assert await anext(pieces) == b"data: 1\n\n"
        with pytest.raises(Refusal) as caught:
            await anext(pieces)
        await stream.aclose()
        assert len(origin.requests) == 1
    assert caught.value.code == "upstream_failed"


async def test_silence_is_a_timeout_and_not_asked_again(house: House) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.hung_up()

    async with Origin(play) as origin:
        refusal = await house.refusal(origin.url, retries=2, first_byte_timeout_s=0.05)
        assert len(origin.requests) == 1
    assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_timeout", "unknown")


async def test_a_silent_stream_is_a_timeout(house: House) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED)
        await exchange.hung_up()

    async with Origin(play) as origin:
        stream = await house.stream(origin.url, idle_timeout_s=0.05)
        with pytest.raises(Refusal) as caught:
            await anext(aiter(stream))
        await stream.aclose()
    assert caught.value.code == "upstream_timeout"


# ------------------------------------------------------------ asking again


@pytest.mark.parametrize("status", [b"408 T", b"409 C", b"429 S", b"500 E", b"503 B", b"529 O"])
async def test_a_passing_failure_is_asked_again(house: House, status: bytes) -> None:
    async with Origin(in_turn(error(status, message="busy"), ok(ANSWER, JSON))) as origin:
        reply = await house.ask(origin.url, retries=2)
        assert len(origin.requests) == 2
    assert reply.body == ANSWER
    assert house.slept == [0.375]


async def test_asking_again_is_bounded_and_backs_off(house: House) -> None:
    async with Origin(always(error(b"503 B", message="busy"))) as origin:
        refusal = await house.refusal(origin.url, retries=3)
        assert len(origin.requests) == 4
    assert "busy" in refusal.message
    assert house.slept == [0.375, 0.75, 1.5]


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (b"retry-after: 3", 3.0),
        (b"retry-after-ms: 250", 0.25),
        (b"retry-after: Tue, 14 Nov 2023 22:13:27 GMT", 7.0),
        (b"retry-after: soon", 0.375),
        (b"retry-after: nan", 0.375),
        (b"retry-after: -1", 0.375),
    ],
)
async def test_the_wait_is_what_the_provider_asks_for(house: House, header: bytes, wait_s: float) -> None:
    async with Origin(in_turn(error(b"429 S", header, message="x"), ok(ANSWER, JSON))) as origin:
        await house.ask(origin.url, retries=1)
    assert house.slept == [wait_s]


async def test_no_attempt_begins_after_the_deadline(house: House) -> None:
    async with Origin(always(error(b"503 B", b"retry-after: 19", message="x"))) as origin:
        await house.refusal(origin.url, retries=10)
        assert len(origin.requests) == 4
    assert house.slept == [19.0] * 3


async def test_the_provider_may_say_that_asking_again_is_useless(house: House) -> None:
    async with Origin(always(error(b"503 B", b"x-should-retry: false", message="x"))) as origin:
        await house.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1


async def test_a_server_that_is_not_there_is_tried_again(house: House) -> None:
    async with Origin(always(b"")) as origin:
        url = origin.url
    refusal = await house.refusal(url, retries=2)
    assert refusal.detail["dispatched"] == "no"
    assert len(house.slept) == 2


async def test_a_request_that_died_without_an_answer_is_not_asked_again(house: House) -> None:
    """It may be running at the provider, for money."""
    async with Origin(in_turn(b"", ok(ANSWER, JSON))) as origin:
        refusal = await house.refusal(origin.url, retries=2)
        assert len(origin.requests) == 1
    assert refusal.detail["dispatched"] == "unknown"


async def test_a_mistake_of_the_agent_ends_the_attempts(house: House) -> None:
    async with Origin(in_turn(error(b"503 B", message="x"), error(b"400 Bad", message="wrong"))) as origin:
        refusal = await house.refusal(origin.url, retries=5)
        assert len(origin.requests) == 2
    assert refusal.http_status == 400


async def test_cancelling_while_waiting_to_ask_again_ends_it(house: House) -> None:
    waiting = asyncio.Event()

    class Endless(House):
        async def sleep(self, seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

    house = Endless(house.wire)
    async with Origin(always(error(b"503 B", message="x"))) as origin:
        task = asyncio.create_task(house.ask(origin.url, retries=2))
        await asyncio.wait_for(waiting.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ------------------------------------------------------------ our secrets, and failures that look like success


async def test_an_answer_nested_too_deeply_is_a_failure_of_the_provider(house: House) -> None:
    deep = b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    async with Origin(always(ok(deep, JSON))) as origin:
        refusal = await house.refusal(origin.url)
    assert refusal.code == "upstream_failed"


@pytest.mark.parametrize("choices", [b"", b',"choices":null', b',"choices":[]'])
async def test_an_error_without_choices_is_a_failure_though_its_status_is_200(house: House, choices: bytes) -> None:
    told = b'{"error":{"message":"No capacity for ' + KEY.encode() + b'","type":"overloaded"}' + choices + b"}"
    async with Origin(always(ok(told, JSON))) as origin:
        refusal = await house.refusal(origin.url, retries=2)
    assert refusal.code == "upstream_failed"
    assert "No capacity for [redacted]" in refusal.message
    assert len(origin.requests) == 1, "it may have been paid for"


async def test_an_answer_that_has_both_choices_and_an_error_passes(house: House) -> None:
    told = b'{"choices":[{"index":0}],"error":{"message":"half"}}'
    async with Origin(always(ok(told, JSON))) as origin:
        assert (await house.ask(origin.url)).body == told


async def test_secret_headers_and_the_key_are_taken_out_of_whatever_the_provider_says(house: House) -> None:
    secret = "quiet-azure-value"
    known_secrets.remember("env:AZURE_KEY", secret)
    more: dict[str, Any] = {"headers": {"x-azure-key": secret}}
    echoed = f"{secret} and {KEY}"
    said = json.dumps({"choices": [{"message": {"content": echoed}}]}).encode()
    async with Origin(always(ok(said, JSON))) as origin:
        reply = await house.ask(origin.url, **more)
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == "[redacted] and [redacted]"
    house.keys.append(KEY)
    async with Origin(always(error(b"400 Bad Request", message=f"bad {secret}"))) as origin:
        refusal = await house.refusal(origin.url, **more)
    assert "bad [redacted]" in refusal.message
