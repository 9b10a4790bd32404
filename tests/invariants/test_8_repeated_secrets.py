"""Invariant 8 against upstreams that repeat the gateway's secrets: in results, definitions, errors, streams and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.view import Filter
from gateway.documents import errors
from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import within
from tests.e2e.upstream import SECRET, Exchange, Play, chunk
from tests.gateway_house import Running
from tests.refund_house import Desk, refund, stream_of
from tests.telemetry.receiver import Collector

SERVER = Path(__file__).parents[1] / "upstreams" / "parrot_server.py"
TOKEN = "parrot-secret-0123456789"
HOWS = ("plain", "structured", "is-error", "resource", "nested", "escaped", "error", "error-escaped")
MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25", "host": "127.0.0.1"}


def register(folder: Path) -> None:
    """A server that repeats its secret, and an agent may call it."""
    transport = {"type": "stdio", "command": [sys.executable, "-S", str(SERVER)], "env": {"TOKEN": "env:PARROT_TOKEN"}}
    tools = {"repeat": {"risk": "low", "effect": "read"}}
    manifest = {"version": 1, "server": "parrot", "owner": "dana", "transport": transport, "tools": tools}
    (folder / "tools_registry" / "parrot.yaml").write_text(json.dumps(manifest))
    (folder / "policies" / "grants" / "data.yaml").write_text(
        'agents: {}\nteams: {}\ntiers:\n  standard: {models: ["*"], servers: {parrot: {max_risk: low}}}\n'
    )


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def test_a_tool_server_s_secret_comes_out_nowhere(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PARROT_TOKEN", TOKEN)
    register(running.folder)
    assert errors(await running.app.reload("test")) == []
    heard = ""
    async with await running.agent() as agent, running.client(running.operator_token) as operator:
        while not running.app.catalog.tools("parrot"):
            await asyncio.sleep(0.01)
        for path in ("/mcp", "/mcp/parrot"):
            listed = (await agent.post(path, json=rpc("tools/list"), headers=MCP)).text
            assert "[redacted]" in listed
            heard += listed
        for how in HOWS:
            called = await agent.post(
                "/mcp/parrot", json=rpc("tools/call", name="repeat", arguments={"how": how}), headers=MCP
            )
            assert "[redacted]" in called.text, (how, called.text)
            heard += called.text
        records = await running.all_events("action.result", len(HOWS))
        for record in records:
            heard += json.dumps(record)
            heard += (await operator.get(f"/api/v1/audit/records/{record['id']}?disclose=true")).text
        for path in ("status", "tools", "tools/parrot", "tools/seen", "audit/records?limit=500"):
            heard += (await operator.get(f"/api/v1/{path}")).text
        disclosed = await running.app.log.query(Filter(type="action.result", limit=100))
        heard += repr(disclosed)
    await running.app.tools.aclose()
    assert "my token is [redacted]!" in heard
    heard += caplog.text
    assert "starting with [redacted]" in caplog.text
    assert "its last words" in caplog.text or "x" * 900 in caplog.text
    # Neither the secret nor the part of it that a cut line has, nor an escaped one.
    for part in (TOKEN, TOKEN[:10], TOKEN.encode().hex(), "\\u0070\\u0061"):
        assert part not in heard


async def test_an_answer_that_waits_for_people_is_kept_without_the_provider_s_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UP_KEY", SECRET)
    write = desk.write

    def with_key(**changed: Any) -> None:
        write(**changed)
        file = desk.folder / "gateway.yaml"
        file.write_text(file.read_text().replace("retries: 0,", 'retries: 0, api_key: "env:UP_KEY",'))

    monkeypatch.setattr(desk, "write", with_key)
    await desk.configure()
    text = [chunk({"content": SECRET[at : at + 3]}) for at in range(0, len(SECRET), 3)]
    events = stream_of(refund(order=SECRET, note=f"key {SECRET}"))
    kept: list[bytes] = []
    keep = desk.app.approvals.keep_answer

    async def seen(action: Any, answer_id: str, body: bytes, **more: Any) -> None:
        kept.append(body)
        await keep(action, answer_id, body, **more)

    monkeypatch.setattr(desk.app.approvals, "keep_answer", seen)
    play = desk.plays({}, *text, *events)
    told = await desk.told(play, stream=True)
    (case,) = await desk.waiting()
    assert SECRET not in repr(case.action.arguments)
    assert "[redacted]" in repr(case.action.arguments)
    (body,) = kept
    assert b"[redacted]" in body
    events = [json.loads(line[6:]) for line in body.decode().split("\n\n") if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "[redacted]"
    assert SECRET not in json.dumps(events)
    assert SECRET not in repr(told.body)


def torn(exchange: Exchange, _: Play) -> None:
    """The provider's key, a few characters at a time, in each text of an answer and in a call."""
    if not exchange.received.body.get("stream"):
        message = {"role": "assistant", "content": f"key {SECRET}", "reasoning": SECRET}
        exchange.answer(
            {
                "id": SECRET,
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
        )
        return
    exchange.begin()
    for field in ("content", "reasoning_content", "refusal"):
        for at in range(0, len(SECRET), 5):
            exchange.event(chunk({field: SECRET[at : at + 5]}))
    escaped = SECRET.replace("s", "\\u0073")
    for at in range(0, len(escaped), 7):
        call = {"index": 0, "id": "c1", "function": {"name": "unknown_tool", "arguments": escaped[at : at + 7]}}
        exchange.event(chunk({"tool_calls": [call]}))
    exchange.event(chunk({}, finish="tool_calls"))
    exchange.send(b"data: [DONE]\n\n")
    exchange.end()


def refused(exchange: Exchange, _: Play) -> None:
    body = {"error": {"message": f"Wrong key {SECRET}", "type": SECRET, "param": SECRET, "code": SECRET}}
    exchange.answer(json.dumps(body).replace("sk-", "\\u0073k\\u002d").encode(), 400)


def test_a_running_gateway_writes_and_exports_no_secret_that_upstreams_repeat(
    make_house: MakesHouse,
) -> None:
    house = make_house(ledger=False, start=False)
    with Collector() as collector:
        heard = hear_all(house, collector)
    gateway = house.gateway
    assert b"[redacted]" in heard
    assert any("starting with [redacted]" in line for line in gateway.lines)
    token = (gateway.data_dir / "operator.token").read_text().strip()
    for secret in (SECRET, TOKEN, token, "collector-secret-0123", SECRET[5:], TOKEN[:12]):
        assert secret.encode() not in heard, secret
    for file in gateway.data_dir.rglob("*"):
        if file.is_file() and file.name != "operator.token":
            assert SECRET.encode() not in file.read_bytes()
            assert TOKEN.encode() not in file.read_bytes()


def hear_all(house: House, collector: Collector) -> bytes:
    """All that agents, operators, the log and the collector are told."""
    gateway = house.gateway
    gateway.environment |= {
        "PARROT_TOKEN": TOKEN,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=collector-secret-0123",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BLRP_SCHEDULE_DELAY": "50",
        "GATEWAY_LOG_LEVEL": "debug",
    }
    register(gateway.folder)
    gateway.start()

    def servers() -> Any:
        return gateway.operator("GET", "/status").json()["tool_servers"]

    within(lambda: any(one["id"] == "parrot" and one["state"] == "connected" for one in servers()), "the server")
    agent = gateway.agent("listener")
    heard = b""
    for player in (torn, refused):
        for stream in (False, True):
            heard += agent.chat(house.upstream.plays(player).word, stream=stream).content
    for how in HOWS:
        call = json.dumps(rpc("tools/call", name="repeat", arguments={"how": how})).encode()
        heard += agent.post("/mcp/parrot", call, accept=MCP["accept"]).content
    for record in agent.results(4 + len(HOWS)):
        heard += gateway.operator("GET", f"/audit/records/{record['id']}?disclose=true").content
    with gateway.browser() as client:
        for path in ("/activity", "/tools", "/models", "/audit"):
            heard += client.get(f"/console{path}").content
    assert gateway.stop() == 0
    return heard + "\n".join(gateway.lines).encode() + repr(collector._received).encode()
