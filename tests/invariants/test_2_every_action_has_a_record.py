"""Invariant 2: every action that reached a door has a record, and every intent exactly one result."""

from __future__ import annotations

import json
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.fixtures import House
from tests.e2e.gateway_process import Agent, within
from tests.e2e.upstream import Exchange, Play, chunk, completion, words


def ends(agent: Agent) -> dict[str, list[str]]:
    """Action id -> the records that began and ended it."""
    found: dict[str, list[str]] = {}
    for record in agent.records():
        if record["type"] in ("action.intent", "action.result", "action.refused", "action.decided"):
            found.setdefault(record["action"]["id"], []).append(record["type"])
    return found


def assert_all_ended(agent: Agent, actions: int) -> None:
    """As many actions as asked for, each refused, listed, or begun and ended once."""

    def settled() -> bool:
        found = ends(agent)
        return len(found) >= actions and all(types != ["action.intent"] for types in found.values())

    within(settled, f"{actions} ended actions of {agent.name}")
    found = ends(agent)
    assert len(found) == actions
    for types in found.values():
        assert types in (["action.intent", "action.result"], ["action.refused"], ["action.decided"])


HEADER_FAULTS = {
    "x-gateway-session": "no spaces allowed",
    "x-gateway-purpose": "p" * 300,
    "idempotency-key": "k" * 300,
    "content-encoding": "gzip",
}
BODIES: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe\x00",
    b'{"model": "up"}',
    b'{"model": 1, "messages": []}',
    b'{"model": "", "messages": []}',
    b'{"model": "up", "messages": {}}',
    b'{"model": "up", "messages": [], "stream": "yes"}',
    b'{"model": "up", "messages": [], "max_tokens": -1}',
    b'{"model": "up", "messages": [], "max_tokens": 1e99}',
    b'{"model": "up", "messages": [], "n": true}',
    b'{"model": "up", "messages": [], "tools": 7}',
    b'{"model": "up", "messages": [], "tools": [{"type": "function"}]}',
    b'{"model": "up", "messages": [1]}',
    b'{"model": "up", "messages": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
    b'{"model": "\\ud800", "messages": []}',
    b'{"model": "nothing-of-that-name", "messages": []}',
]


def test_whatever_a_client_sends_it_gets_a_clear_error_and_a_record(house: House) -> None:
    agent = house.agent("malformed")
    sent = 0
    for body in BODIES:
        answer = agent.post("/v1/chat/completions", body)
        sent += 1
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) in ((400, "malformed"), (404, "model_not_found")), body[:60]
        assert "Traceback" not in answer.text
    for name, value in HEADER_FAULTS.items():
        answer = agent.post("/v1/chat/completions", b'{"model": "up", "messages": []}', **{name: value})
        sent += 1
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed"), name
    with agent.client() as client:
        for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/responses"), ("POST", "/v1/models")):
            answer = client.request(method, path, json={"model": "up", "messages": []})
            sent += 1
            assert answer.status_code in (404, 405)
    assert_all_ended(agent, sent)
    assert set(map(tuple, ends(agent).values())) == {("action.refused",)}


def test_malformed_mcp_messages_are_refused_and_recorded(house: House) -> None:
    agent = house.agent("malformed-mcp")
    bodies: list[Any] = [
        b"{",
        b"[]",
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "transfer", "arguments": []}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "transfer", "arguments": {"to": 1}}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "no_such_tool"}},
        {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///etc/passwd"}},
        {"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}},
    ]
    for body in bodies:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = agent.post("/mcp/ledger", raw, accept="application/json, text/event-stream")
        assert "Traceback" not in answer.text
        assert answer.status_code < 500
        assert "error" in answer.text or answer.json()["result"]["isError"]
    assert_all_ended(agent, len(bodies))
    assert house.wire.sent.count(b"/etc/passwd") == 0


def test_a_60_mb_body_is_refused_and_recorded_through_both_doors(house: House) -> None:
    agent = house.agent("large")
    body = b'{"model": "up", "messages": [{"role": "user", "content": "' + b"a" * 60_000_000 + b'"}]}'
    chat = agent.post("/v1/chat/completions", body)
    assert (chat.status_code, chat.json()["error"]["code"]) == (413, "too_large")
    mcp = agent.post("/mcp/ledger", body, accept="application/json, text/event-stream")
    assert mcp.status_code == 413
    assert "error" in mcp.json()
    assert [record["result"]["code"] for record in agent.refusals(2)] == ["too_large", "too_large"]


def test_listing_is_recorded_too(house: House) -> None:
    agent = house.agent("lister")
    with agent.client() as client:
        models = client.get("/v1/models")
        one = client.get("/v1/models/up")
    assert {row["id"] for row in models.json()["data"]} >= {"up", "demo"}
    agent.post(
        "/mcp", b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}', accept="application/json, text/event-stream"
    )
    within(lambda: len(agent.records("action.decided")) >= 3, "three listings")
    listings = agent.records("action.decided")
    assert [record["decision"]["rules"] for record in listings] == [["models_listed"]] * 2 + [["tools_listed"]]
    recorded = {record["action"]["id"] for record in listings}
    assert {models.headers["x-gateway-action"], one.headers["x-gateway-action"]} <= recorded


def test_clients_that_hang_up_anywhere_leave_no_intent_open(house: House) -> None:
    agent = house.agent("rude")
    play = house.upstream.streams(*words(*["word "] * 30))
    body = json.dumps({"model": "up", "stream": True, "messages": [{"role": "user", "content": play.word}]}).encode()
    request = agent.head("/v1/chat/completions", len(body)) + body
    host, port = house.gateway.url.removeprefix("http://").split(":")
    chance = random.Random(7)

    def leave(number: int) -> None:
        with socket.create_connection((host, int(port)), 20) as connection:
            if number % 3 == 0:  # in the middle of the request
                connection.sendall(request[: chance.randrange(len(request))])
            else:  # in the middle of the answer, or before it
                connection.sendall(request)
                left = chance.randrange(3000) if number % 3 == 1 else 0
                while left > 0 and (data := connection.recv(min(left, 4096))):
                    left -= len(data)
            if number % 2:  # a reset rather than an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(60)))
    assert agent.chat("Hello").status_code == 200  # and it still serves
    within(lambda: house.gateway.operator("GET", "/status").json()["audit"]["open_intents"] == 0, "no open intent")
    for types in ends(agent).values():
        assert types in (["action.intent", "action.result"], ["action.refused"])
    house.gateway.verified()


def _reset(exchange: Exchange, _: Play) -> None:
    exchange.hang_up()


def _half_head(exchange: Exchange, _: Play) -> None:
    exchange._handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    exchange.hang_up()


def _short_body(exchange: Exchange, _: Play) -> None:
    exchange._handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{")
    exchange.hang_up()


def _half_stream(exchange: Exchange, _: Play) -> None:
    exchange.begin()
    exchange.event(chunk({"content": "Half of it"}))
    exchange.hang_up()


def _broken_event(exchange: Exchange, _: Play) -> None:
    exchange.begin()
    exchange.event(chunk({"content": "So far"}))
    exchange.send(b"data: {nonsense\n\n")
    exchange.end()


FAILURES = [
    (_reset, False, 502),
    (_half_head, False, 502),
    (_short_body, False, 502),
    (lambda exchange, _: exchange.answer(b"not JSON"), False, 502),
    (lambda exchange, _: exchange.answer([], status=200), False, 502),
    (lambda exchange, _: exchange.answer({"error": {"message": "boom"}}, status=500), False, 502),
    (lambda exchange, _: exchange.answer({"error": {"message": "slow down"}}, 429, {"retry-after": "3"}), False, 429),
    (lambda exchange, _: exchange.answer({"error": {"message": "bad key"}}, status=401), False, 502),
    (_reset, True, 502),
    (_half_stream, True, 200),
    (_broken_event, True, 200),
]


@pytest.mark.parametrize("number", range(len(FAILURES)))
def test_an_upstream_that_fails_at_any_point_ends_the_intent_once(house: House, number: int) -> None:
    player, stream, status = FAILURES[number]
    agent = house.agent("unlucky")
    play = house.upstream.plays(player)
    answer = agent.chat(play.word, stream=stream)
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    assert '"error"' in answer.text
    (result,) = agent.results(1)
    assert result["result"]["status"] == "failed"
    assert len(play.received) <= 2  # a pooled connection that ends without a byte is taken for stale, once
    assert_all_ended(agent, 1)


def test_a_gateway_that_loses_its_ledger_says_unknown_where_something_may_have_happened(house: House) -> None:
    agent = house.agent("unsure")
    cut = house.wire.hold_sent(b"unsure-2")
    cut.drop()
    told = agent.pay("unsure-2")
    assert "error" in told or told["result"]["isError"]
    (result,) = agent.results(1)
    assert result["result"]["status"] == "unknown"
    assert house.ledger.transfers("unsure-2") == 0


def test_many_at_once_are_all_on_record(house: House) -> None:
    agent = house.agent("crowd")
    good = house.upstream.answers(completion("Fine."))
    bad = house.upstream.answers({"error": {"message": "no"}}, status=503)
    start = threading.Barrier(16)

    def ask(number: int) -> int:
        if number < 16:
            start.wait(20)
        match number % 4:
            case 0:
                return agent.chat(good.word).status_code
            case 1:
                return agent.chat(bad.word, stream=True).status_code
            case 2:
                return agent.chat(good.word, model="nothing").status_code
            case _:
                return 200 if "result" in agent.pay(f"crowd {number}", 1) else 500

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, range(80)))
    assert sorted(set(statuses)) == [200, 404, 502]
    assert_all_ended(agent, 80)
    assert sum(house.ledger.transfers(f"crowd {number}") for number in range(80)) == 20
    house.gateway.verified()
