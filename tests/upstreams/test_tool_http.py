"""Tool servers over streamable HTTP: both eras on the wire, and every way in which a server can be bad."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.upstreams import mcp_http
from gateway.upstreams.mcp_messages import header_value
from tests.upstreams.origin import CHUNKED, END, Exchange, Origin, Player, Request, chunk, ok
from tests.upstreams.tool_world import QUICK, World, http

JSON = b"content-type: application/json"
Act = Callable[[Exchange, dict[str, Any], Request], Awaitable[None]]
TOOLS = [
    {
        "name": "echo",
        "inputSchema": {
            "type": "object",
            "properties": {
                "region": {"type": "string", "x-mcp-header": "Region"},
                "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            },
        },
        "x-vendor": 1,
    }
]


def result(message: dict[str, Any], body: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": body}).encode()


def event(data: bytes) -> bytes:
    return chunk(b"event: message\r\ndata: " + data + b"\r\n\r\n")


async def answer(exchange: Exchange, message: dict[str, Any], body: Any, *headers: bytes) -> None:
    await exchange.send(ok(result(message, body), JSON, *headers))


async def echo(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await answer(exchange, message, {"content": [], "params": message["params"]})


def server(act: Act = echo, *, modern: bool = True, listen: Act | None = None, ping: Act | None = None) -> Player:
    """A tool server whose calls are played by `act`; legacy ones have sessions that are made by `initialize`."""
    sessions: list[str] = []
    numbers = itertools.count()

    async def play(exchange: Exchange) -> None:
        while True:
            request = await exchange.request()
            message: dict[str, Any] = json.loads(request.body) if request.body else {}
            method = message.get("method")
            if method == "server/discover" and modern:
                capabilities = {"tools": {"listChanged": listen is not None}}
                await answer(exchange, message, {"supportedVersions": ["2026-07-28"], "capabilities": capabilities})
            elif method == "server/discover":
                await exchange.send(ok(b"Bad Request: Missing session ID", status=b"400 Bad Request"))
            elif method == "initialize":
                sessions.append(f"session-{next(numbers)}")
                capabilities = {"tools": {"listChanged": listen is not None}}
                body = {"protocolVersion": "2025-06-18", "capabilities": capabilities}
                await answer(exchange, message, body, b"Mcp-Session-Id: " + sessions[-1].encode())
            elif not modern and request.header("mcp-session-id") not in sessions:
                await exchange.send(ok(b"{}", JSON, status=b"404 Not Found"))
            elif method == "tools/list":
                await answer(exchange, message, {"tools": TOOLS})
            elif method == "ping" and ping is not None:
                await ping(exchange, message, request)
            elif method == "tools/call":
                if message["params"]["name"] == "forget":
                    sessions.clear()
                await act(exchange, message, request)
            elif listen is not None and (method == "subscriptions/listen" or request.head.startswith(b"GET")):
                await listen(exchange, message, request)
            else:
                await exchange.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    return play


def said(origin: Origin, method: str) -> list[Request]:
    return [request for request in origin.requests if f'"method":"{method}"'.encode() in request.body]


# ---------------------------------------------------------------- both eras


async def test_modern_requests_carry_the_envelope_and_headers_that_repeat_the_body() -> None:
    async with Origin(server()) as origin, World() as world:
        await world.connect(http(origin.url + "/mcp"))
        assert world.learned[-1][1] == TOOLS
        found = await world.call("echo", region="eu west", deep={"n": 3})
        assert found["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        (request,) = said(origin, "tools/call")
        assert request.header("mcp-protocol-version") == "2026-07-28"
        assert (request.header("mcp-method"), request.header("mcp-name")) == ("tools/call", "echo")
        assert (request.header("mcp-param-region"), request.header("mcp-param-n")) == ("eu west", "3")
        assert request.header("mcp-session-id") is None


async def test_legacy_servers_get_a_handshake_and_their_session_back() -> None:
    async with Origin(server(modern=False)) as origin, World() as world:
        await world.connect(http(origin.url + "/mcp"))
        found = await world.call("echo", a=1)
        assert found["params"] == {"name": "echo", "arguments": {"a": 1}}
        (request,) = said(origin, "tools/call")
        assert request.header("mcp-protocol-version") == "2025-06-18"
        assert request.header("mcp-session-id") == "session-0"
        assert request.header("mcp-method") is None
        assert len(said(origin, "notifications/initialized")) == 1
    assert origin.requests[-1].head.startswith(b"DELETE"), "the session is ended at stop"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("plain text", b"plain text"),
        ("", b"=?base64??="),
        (" edge", b"=?base64?IGVkZ2U=?="),
        ("ü", b"=?base64?w7w=?="),
        ("a\r\nb", b"=?base64?YQ0KYg==?="),
        ("=?base64?eA==?=", b"=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
    ],
)
def test_a_header_carries_any_value_without_a_line_end(value: str, sent: bytes) -> None:
    assert header_value(value) == sent


async def test_unknown_fields_of_an_answer_survive_byte_for_byte() -> None:
    odd = b'{"content":[],"x":{"n":1.50,"big":123456789012345678901234567890,"u":"\\u00fc"}}'

    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(ok(b'{"jsonrpc":"2.0","id":%d,"result":%s,"x":1}' % (message["id"], odd), JSON))

    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url))
        assert (await world.reply("echo")).body == odd


async def test_the_credential_is_the_servers_own_and_read_anew_after_it_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOL_TOKEN", "old")

    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        if request.header("authorization") == "Bearer new":
            await echo(exchange, message, request)
        else:
            await exchange.send(ok(b"who is old?", status=b"401 Unauthorized"))

    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url, "env:TOOL_TOKEN"))
        refusal = await world.refused("echo")
        assert "gateway's own credential" in refusal.message
        assert "old" not in refusal.message
        assert (refusal.http_status, refusal.detail["dispatched"]) == (502, "unknown")
        monkeypatch.setenv("TOOL_TOKEN", "new")
        await world.until(lambda: len(world.learned) >= 2)
        assert await world.call("echo")


@pytest.mark.parametrize("status", [401, 403])
async def test_after_a_refused_credential_calls_are_not_sent_until_the_tools_are_listed_again(status: int) -> None:
    """The server may have run the call before it refused it, and would run each further one too."""
    locked = True

    async def play(exchange: Exchange) -> None:
        while True:
            request = await exchange.request()
            message: dict[str, Any] = json.loads(request.body) if request.body else {}
            if message.get("method") == "server/discover":
                await answer(exchange, message, {"supportedVersions": ["2026-07-28"], "capabilities": {}})
            elif message.get("method") == "tools/list" and not (locked and said(origin, "tools/call")):
                await answer(exchange, message, {"tools": TOOLS})
            elif locked:
                await exchange.send(ok(b"no", status=b"%d No" % status))
            else:
                await echo(exchange, message, request)

    async with Origin(play) as origin, World() as world:
        await world.connect(http(origin.url))
        assert (await world.refused("echo")).detail["dispatched"] == "unknown"
        refusal = await world.refused("echo")
        assert refusal.detail["dispatched"] == "no"
        assert len(said(origin, "tools/call")) == 1
        locked = False
        await world.until(lambda: world.states()[-1] == "connected" and len(world.learned) >= 2)
        assert await world.call("echo")


async def test_a_credential_file_that_changed_is_read_before_the_old_one_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old-tool-token")
    async with Origin(server()) as origin, World() as world:
        await world.connect(http(origin.url, f"file:{token}"))
        await world.call("echo")
        token.write_text("newer-tool-token")
        await world.call("echo")
        assert [one.header("authorization") for one in said(origin, "tools/call")] == [
            "Bearer old-tool-token",
            "Bearer newer-tool-token",
        ]


async def test_a_server_that_repeats_its_credential_does_not_give_it_to_agents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOL_TOKEN", "quiet-tool-token")

    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        said = f"you sent {request.header('authorization')}"
        name = message["params"]["name"]
        if name == "echo":
            await answer(exchange, message, {"content": [{"type": "text", "text": said}]})
        elif name == "stream":
            body = result(message, {"content": [{"type": "text", "text": said}]})
            await exchange.send(CHUNKED + event(body) + END)
        else:
            error = {
                "jsonrpc": "2.0",
                "id": message["id"],
                "error": {"code": -1, "message": said.replace("Bearer", "")},
            }
            await exchange.send(ok(json.dumps(error).encode(), JSON, status=b"400 Bad Request"))

    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url, "env:TOOL_TOKEN"))
        for name in ("echo", "stream"):
            found = await world.call(name)
            assert found["content"][0]["text"] == "you sent Bearer [redacted]"
        refusal = await world.refused("fail")
        assert "quiet-tool-token" not in refusal.message
        assert "[redacted]" in refusal.message


async def test_a_credential_that_leads_nowhere_keeps_the_server_unconnected() -> None:
    async with Origin(server()) as origin, World() as world:
        world.servers.configure([http(origin.url, "env:NOT_SET_ANYWHERE")])
        await world.until(lambda: "unreachable" in world.states())
        assert origin.requests == []


# ---------------------------------------------------------------- sessions


@pytest.mark.parametrize("calls", [1, 10])
async def test_a_lost_session_is_opened_again_once_and_calls_that_only_read_are_sent_again(calls: int) -> None:
    async with Origin(server(modern=False)) as origin, World() as world:
        await world.connect(http(origin.url))
        await world.call("forget")
        found = await asyncio.gather(*(world.call("echo", once=False, a=n) for n in range(calls)))
        assert [one["params"]["arguments"]["a"] for one in found] == list(range(calls))
        assert len(said(origin, "initialize")) == 2
        await world.until(lambda: len(world.learned) >= 2)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"410 Gone"])
async def test_a_write_is_sent_once_whatever_a_server_says_of_the_session(status: bytes) -> None:
    """It may have run the call before it said so."""

    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        if message["params"]["name"] == "act":
            await exchange.send(ok(b"{}", JSON, status=status))
        else:
            await echo(exchange, message, request)

    async with Origin(server(act, modern=False)) as origin, World() as world:
        await world.connect(http(origin.url))
        refusal = await world.refused("act")
        assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_failed", "unknown")
        assert len(said(origin, "tools/call")) == 1
        assert said(origin, "ping") == []
        await world.call("echo")  # the session is asked for first, and is there
        assert (len(said(origin, "ping")), len(said(origin, "initialize"))) == (1, 1)


async def test_a_session_that_was_idle_is_asked_for_before_a_write_and_opened_again() -> None:
    async with Origin(server(modern=False)) as origin, World(QUICK._replace(probe_after_s=0.0)) as world:
        await world.connect(http(origin.url))
        await world.call("forget")
        found = await world.call("act", a=1)
        assert found["params"]["arguments"] == {"a": 1}
        assert [len(said(origin, one)) for one in ("ping", "initialize", "tools/call")] == [3, 2, 2]
        await world.call("act", once=False)
        assert len(said(origin, "ping")) == 3


async def test_a_write_is_not_sent_where_nothing_answers_the_question_for_its_session() -> None:
    async def deaf(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        exchange.reset()

    async with Origin(server(ping=deaf, modern=False)) as origin, World(QUICK._replace(probe_after_s=0.0)) as world:
        await world.connect(http(origin.url))
        assert (await world.refused("act")).detail["dispatched"] == "no"
        assert said(origin, "ping")
        assert said(origin, "tools/call") == []


# ---------------------------------------------------------------- event streams


async def test_an_answer_may_come_as_a_stream_with_other_messages_before_it() -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(CHUNKED + chunk(b": ping\n\nid: 1\ndata:\n\n"))
        await exchange.send(event(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'))
        await exchange.send(event(b'{"jsonrpc":"2.0","id":4711,"result":{"content":["for nobody"]}}'))
        body = result(message, {"content": ["for me"]})
        await exchange.send(chunk(b"data: " + body[:20]) + chunk(body[20:] + b"\n") + chunk(b"\n") + END)

    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url))
        assert await world.call("echo") == {"content": ["for me"]}


async def test_requests_of_the_server_inside_a_stream_are_answered_or_refused() -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(CHUNKED)
        await exchange.send(event(b'{"jsonrpc":"2.0","id":"p","method":"ping"}'))
        await exchange.send(event(b'{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}'))
        while sum(b'"id":"p"' in one.body or b'"id":"q"' in one.body for one in origin.requests) < 2:
            await asyncio.sleep(0)
        await exchange.send(event(result(message, {"content": []})) + END)

    async with Origin(server(act, modern=False)) as origin, World() as world:
        await world.connect(http(origin.url))
        await world.call("echo")
        answers = [
            json.loads(one.body) for one in origin.requests if b'"id":"p"' in one.body or b'"id":"q"' in one.body
        ]
        assert {one["id"]: one.get("error", {}).get("code") for one in answers} == {"p": None, "q": -32601}


@pytest.mark.parametrize("modern", [True, False])
async def test_changed_tools_are_heard_of_on_the_listening_stream(modern: bool) -> None:
    async def listen(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(CHUNKED + event(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'))
        await exchange.hung_up()

    async with Origin(server(listen=listen, modern=modern)) as origin, World() as world:
        await world.connect(http(origin.url))
        await world.until(lambda: len(world.learned) >= 2)


async def test_a_server_that_always_cries_change_does_not_drive_the_gateway() -> None:
    async def listen(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(CHUNKED + event(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}') * 500)
        await exchange.hung_up()

    async with Origin(server(listen=listen)) as origin, World() as world:
        await world.connect(http(origin.url))
        await world.until(lambda: len(world.learned) >= 2)
        await world.call("echo")
        assert len(said(origin, "tools/list")) < 20


# ---------------------------------------------------------------- bad servers


async def hang_up(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    exchange.reset()


async def half(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{")
    exchange.reset()


async def stream_without_answer(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(CHUNKED + event(b'{"jsonrpc":"2.0","method":"notifications/progress"}') + END)


async def garbage(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(ok(b"<html>", JSON))


async def bad_utf8(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(ok(b'{"jsonrpc":"2.0","id":%d,"result":{"t":"\xff"}}' % message["id"], JSON))


async def garbage_in_stream(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(CHUNKED + event(b"{nope") + END)


async def html(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(ok(b"<html>", b"content-type: text/html"))


async def other_id(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await answer(exchange, {"id": 4711}, {"content": []})


async def text_id(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await answer(exchange, {"id": str(message["id"])}, {"content": []})


async def accepted(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")


async def redirect(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(ok(b"", b"location: http://127.0.0.1:1/", status=b"307 Temporary Redirect"))


async def broken(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(ok(b"Traceback: secret", status=b"500 Internal Server Error"))


async def compressed(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await exchange.send(ok(b"\x1f\x8b", JSON, b"content-encoding: gzip"))


async def a_list(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
    await answer(exchange, message, ["not", "a", "result"])


@pytest.mark.parametrize(
    "act",
    [
        hang_up,
        half,
        stream_without_answer,
        garbage,
        bad_utf8,
        garbage_in_stream,
        html,
        other_id,
        text_id,
        accepted,
        redirect,
        broken,
        compressed,
        a_list,
    ],
)
async def test_a_bad_answer_is_a_refusal_that_says_the_call_may_have_happened_and_it_is_sent_once(act: Act) -> None:
    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url))
        refusal = await world.refused("echo")
        assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_failed", "unknown")
        assert "secret" not in refusal.message
        assert len(said(origin, "tools/call")) == 1


async def test_a_giant_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_http, "MAX_ANSWER_BYTES", 100_000)

    async def plain(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        if message["params"]["arguments"].get("stream"):
            await exchange.send(CHUNKED + chunk(b"data: " + b"x" * 200_000))
        else:
            await answer(exchange, message, {"content": ["x" * 200_000]})

    async with Origin(server(plain)) as origin, World() as world:
        await world.connect(http(origin.url))
        for stream in (False, True):
            assert "larger than" in (await world.refused("echo", stream=stream)).message


async def test_a_slow_server_ends_in_a_timeout_and_a_legacy_one_is_told() -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.hung_up()

    async with Origin(server(act, modern=False)) as origin, World() as world:
        await world.connect(http(origin.url))
        refusal = await world.refused("echo", timeout_s=0.2)
        assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_timeout", "unknown")
        async with asyncio.timeout(5):
            while not said(origin, "notifications/cancelled"):
                await asyncio.sleep(0.001)


async def test_a_stream_that_drips_forever_still_ends_in_the_calls_timeout() -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(CHUNKED)
        while True:
            await exchange.send(chunk(b": still there\n\n"))
            await asyncio.sleep(0.02)

    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url))
        assert (await world.refused("echo", timeout_s=0.3)).code == "upstream_timeout"


async def test_an_error_of_the_server_is_told_whatever_the_status() -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        error = {"code": -32602, "message": "no such branch; password: hunter22"}
        body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
        await exchange.send(ok(body, JSON, status=b"400 Bad Request"))

    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url))
        refusal = await world.refused("echo")
        assert "no such branch" in refusal.message
        assert "hunter22" not in refusal.message
        assert refusal.detail["answered"] == "yes"


async def test_a_server_that_is_gone_refuses_at_once_and_is_found_again_when_it_is_back() -> None:
    async with World() as world:
        async with Origin(server()) as origin:
            url = origin.url
            await world.connect(http(url))
            await world.call("echo")
        refusal = await world.refused("echo")
        assert refusal.code == "upstream_failed"
        await world.until(lambda: "unreachable" in world.states())
        refusal = await world.refused("echo")
        assert (refusal.detail["dispatched"], "is not connected" in refusal.message) == ("no", True)
        again = Origin(server())
        again._host = "127.0.0.1"
        port = int(url.rpartition(":")[2])
        again._server = await asyncio.start_server(again._serve, "127.0.0.1", port)
        world.reports.clear()
        try:
            await world.until(lambda: "connected" in world.states())
            assert await world.call("echo")
        finally:
            await world.servers.aclose()
            await again.__aexit__(None, None, None)


async def test_an_address_that_cannot_be_used_is_a_state_not_a_crash() -> None:
    async with World() as world:
        world.servers.configure([http("http://user:pw@127.0.0.1/mcp")])
        await world.until(lambda: "unreachable" in world.states())
        assert not any("pw" in reason for _, _, reason in world.reports)
