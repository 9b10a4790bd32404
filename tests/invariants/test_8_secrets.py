"""Invariant 8: an agent's credential never goes upstream; upstream secrets never reach an agent, a log, a record or
the console, not even when the upstream tells them itself."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import LEDGER_TOKEN, Gateway, within
from tests.e2e.upstream import SECRET, Exchange, Play, chunk

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


def everything_on_disk(folder: Path) -> bytes:
    """All that the gateway wrote, payloads unsealed by nobody; files of the database are flushed by then."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("header", CREDENTIAL_HEADERS)
def test_the_agents_key_never_goes_upstream(house: House, header: str) -> None:
    agent = house.agent("keyed")
    play = house.upstream.streams(chunk({"content": "Hi"}, finish="stop"))
    value = f"Bearer {agent.key}" if header == "authorization" else agent.key
    sent = {header: value, "cookie": f"session={agent.key}", "x-forwarded-authorization": agent.key}
    body = {"model": "up", "stream": True, "messages": [{"role": "user", "content": play.word}]}
    with httpx.Client(base_url=house.gateway.url, headers=sent, trust_env=False, timeout=20) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_balance"}}
        accept = {"accept": "application/json, text/event-stream"}
        assert client.post("/mcp/ledger", json=call, headers=accept).status_code == 200
    (received,) = play.received
    assert received.headers["authorization"] == f"Bearer {SECRET}"
    assert agent.key not in repr(received)
    assert agent.key.encode() not in bytes(house.wire.sent)
    assert f"Bearer {LEDGER_TOKEN}".encode() in bytes(house.wire.sent)
    assert "cookie" not in received.headers


def _echo(exchange: Exchange, _: Play) -> None:
    told = dict(exchange.received.headers)
    message = f"Incorrect API key provided: {SECRET}. You sent {told} to http://10.0.0.7:8080/internal?key={SECRET}"
    exchange.answer({"error": {"message": message, "type": SECRET, "code": SECRET, "param": SECRET}}, status=400)


def _echo_500(exchange: Exchange, _: Play) -> None:
    exchange.answer(f"<html>Traceback: Authorization: Bearer {SECRET}</html>".encode(), status=500)


def _echo_401(exchange: Exchange, _: Play) -> None:
    exchange.answer({"error": {"message": f"{SECRET} is not valid"}}, 401, {"www-authenticate": f"Bearer {SECRET}"})


def _echo_header(exchange: Exchange, _: Play) -> None:
    exchange.answer({"error": {"message": "slow"}}, 429, {"x-request-key": SECRET, "set-cookie": f"key={SECRET}"})


def _echo_in_stream(exchange: Exchange, _: Play) -> None:
    exchange.begin()
    exchange.event(chunk({"content": "Half"}))
    exchange.event({"error": {"message": f"Your key {SECRET} ran out of money."}})
    exchange.end()


def _echo_garbage(exchange: Exchange, _: Play) -> None:
    exchange.answer(b"{" + SECRET.encode() + b"\xff")


def test_what_an_upstream_says_of_its_own_secret_goes_nowhere(make_house: MakesHouse) -> None:
    house = make_house()
    gateway = house.gateway
    agent = gateway.agent("listener")
    heard = b""
    faults = (_echo, _echo_500, _echo_401, _echo_header, _echo_in_stream, _echo_garbage)
    for player in faults:
        for stream in (False, True):
            answer = agent.chat(house.upstream.plays(player).word, stream=stream)
            heard += answer.content + repr(answer.headers).encode()
    agent.pay("secretive")
    heard += repr(agent.tool("no_such_tool", {})).encode()
    records = agent.results(2 * len(faults) + 1)
    # What operators and auditors see: everything disclosed.
    for record in records:
        heard += gateway.operator("GET", f"/audit/records/{record['id']}?disclose=true").content
        heard += gateway.operator("GET", f"/audit/records/{record['refs']['intent']}?disclose=true").content
    for path in ("/status", "/tools", "/models", "/agents", "/audit/records?limit=500", f"/agents/{agent.name}/keys"):
        heard += gateway.operator("GET", path).content
    heard += gateway.get("/metrics").content
    heard += console(gateway, [record["action"]["id"] for record in records])
    assert gateway.stop() == 0
    heard += "\n".join(gateway.lines).encode()
    for secret in (SECRET, LEDGER_TOKEN, agent.key):
        assert secret.encode() not in heard
        assert secret.encode() not in everything_on_disk(gateway.data_dir)
    assert b"10.0.0.7" not in heard
    for line in gateway.lines:
        assert "Traceback" not in line


def console(gateway: Gateway, actions: list[str]) -> bytes:
    """The pages of the console as a signed-in person sees them."""
    seen = b""
    with gateway.browser() as client:
        for path in ("/activity", "/agents", "/tools", "/models", "/audit", "/overview"):
            page = client.get(f"/console{path}")
            assert page.status_code == 200, path
            seen += page.content
        for action in actions[:3]:
            seen += client.get(f"/console/activity/{action}").content
    return seen


def test_a_person_signed_in_to_the_console_sees_actions_and_no_secret(make_house: MakesHouse) -> None:
    house = make_house()
    agent = house.gateway.agent("watched")
    agent.chat(house.upstream.plays(_echo).word)
    agent.pay("watched")
    agent.results(2)
    pages = console(house.gateway, [agent.records()[0]["action"]["id"]])
    for secret in (SECRET, LEDGER_TOKEN, agent.key):
        assert secret.encode() not in pages


def test_payloads_are_sealed_on_disk(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    agent = gateway.agent("private")
    agent.chat("An unmistakable sentence of the user's.")
    agent.results(1)
    within(lambda: gateway.operator("GET", "/audit/records").status_code == 200, "the projection")
    assert gateway.stop() == 0
    assert b"unmistakable" not in everything_on_disk(gateway.data_dir)
    for file in (gateway.data_dir / "keys").iterdir():
        assert file.stat().st_mode & 0o077 == 0
    assert (gateway.data_dir / "operator.token").stat().st_mode & 0o077 == 0
