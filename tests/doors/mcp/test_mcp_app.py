"""The whole gateway with the quickstart's ledger, asked by the official SDK's client in each of its modes.

The ladder of waiting is the shipped one but for its lengths.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from gateway.app import App
from gateway.approvals.case import Case, Choice, State
from gateway.doors.dispatch import Dispatcher
from gateway.doors.hosts import Hosts
from gateway.doors.mcp import Ladder, McpDoor, Origins, Sessions
from gateway.identity import Role
from gateway.process import Process
from gateway.telemetry import trace_parser

ROOT = Path(__file__).parents[3]


class Running(NamedTuple):
    app: App
    url: str
    key: str
    ledger_db: Path


@asynccontextmanager
async def ledger(db: Path) -> AsyncIterator[str]:
    """The quickstart's ledger as a process of its own; gives its URL."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.quickstart.ledger", "--db", str(db), "--until-stdin-closes",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        line = await asyncio.wait_for(child.stdout.readline(), 30)
        yield str(json.loads(line)["url"])
    finally:
        child.stdin.close()
        await child.wait()


def quick_door(app: App) -> McpDoor:
    return McpDoor(
        app.desk,
        app.governor,
        sessions=Sessions(b"k" * 32),
        origins=Origins(bound_host="127.0.0.1"),
        definition=app.catalog.definition,
        parse_trace=trace_parser(os.urandom),
        version="0",
        ladder=Ladder(leg_s=0.3, legs=3, progress_s=10, first_beat_s=0.05, beat_s=0.05),
    )


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    for name in ("policies", "tools_registry"):
        shutil.copytree(ROOT / name, tmp_path / name)
    config_file = tmp_path / "gateway.yaml"
    config_file.write_text((ROOT / "gateway.yaml").read_text() + "approvals: {hold_s: 0.3}\n")
    async with ledger(tmp_path / "ledger.db") as upstream:
        monkeypatch.setenv("LEDGER_URL", upstream)
        monkeypatch.setenv("LEDGER_TOKEN", "not-asked-for")
        app = App(Process(data_dir=tmp_path / "var", config=config_file))
        await app.start()
        _, key = await app.registry.keys.create("demo-agent", person=None)
        await app.registry.people.add("rita", name="Rita", roles=[Role.REVIEWER], by=None)
        config = uvicorn.Config(
            Dispatcher(models=app.asgi, mcp=quick_door(app), rest=app.asgi, hosts=Hosts(bound_host="127.0.0.1")),
            host="127.0.0.1",
            port=0,
            lifespan="off",
            log_config=None,
        )
        server, socket = uvicorn.Server(config), config.bind_socket()
        serving = asyncio.create_task(server.serve(sockets=[socket]))
        try:
            async with asyncio.timeout(10):
                while not app.catalog.tools("ledger"):  # the tool server is connected in the background
                    await asyncio.sleep(0.01)
            yield Running(app, f"http://127.0.0.1:{socket.getsockname()[1]}", key, tmp_path / "ledger.db")
        finally:
            server.should_exit = True
            await serving
            socket.close()
            await app.stop(5)


@asynccontextmanager
async def client(running: Running, path: str, mode: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {running.key}"}, timeout=10) as http,
        Client(streamable_http_client(running.url + path, http_client=http), mode=mode, cache=None) as connected,
    ):
        yield connected


def told(result: CallToolResult) -> str:
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def transfers(running: Running) -> int:
    with sqlite3.connect(running.ledger_db) as connection:
        (count,) = connection.execute("SELECT count(*) FROM transfers").fetchone()
    connection.close()
    return int(count)


@pytest.mark.parametrize(
    ("path", "mode"),
    [("/mcp", "2026-07-28"), ("/mcp/ledger", "auto"), ("/mcp", "legacy"), ("/s/my-run/mcp/ledger", "legacy")],
)
async def test_the_ledger_story_through_the_whole_gateway(running: Running, path: str, mode: str) -> None:
    prefix = "ledger__" if path == "/mcp" else ""
    async with client(running, path, mode) as up:
        listed = {each.name for each in (await up.list_tools()).tools}
        assert {f"{prefix}get_balance", f"{prefix}list_payees", f"{prefix}transfer"} <= listed
        assert f"{prefix}close_account" not in listed

        async def transfer(to: str, amount_cents: int) -> CallToolResult:
            arguments = {"to": to, "amount_cents": amount_cents, "reference": "INV-1"}
            return await up.call_tool(f"{prefix}transfer", arguments)

        balance = await up.call_tool(f"{prefix}get_balance", {})
        assert balance.structured_content == {"balance_cents": 1_000_000}
        paid = await transfer("acme-gmbh", 2500)
        assert not paid.is_error
        assert paid.structured_content is not None
        assert paid.structured_content["balance_cents"] == 997_500
        assert "acme-gmbh" in told(await transfer("eve", 2500))
        assert "NOT executed" in told(await transfer("acme-gmbh", 2_000_000))
        assert "Nothing was executed" in told(await transfer("acme-gmbh", -1))
        for name in ("close_account", "no_such_tool"):
            with pytest.raises(MCPError, match=f"Unknown tool: {prefix}{name}"):
                await up.call_tool(f"{prefix}{name}", {})
    assert transfers(running) == 1


async def test_a_hidden_tool_looks_unknown_whatever_it_is_called_with(running: Running) -> None:
    async with client(running, "/mcp/ledger", "auto") as up:
        with pytest.raises(MCPError, match="Unknown tool: close_account"):
            await up.call_tool("close_account", {"confirm": ["no", {"such": "argument"}]})


async def test_an_unknown_server_is_not_found(running: Running) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(MCPError, match="no tool server nix"), flatten_subgroups=True):
        async with client(running, "/mcp/nix", "auto"):
            raise AssertionError


# ------------------------------------------------------------ waiting for a person

LARGE = {"to": "acme-gmbh", "amount_cents": 90_000, "reference": "INV-9"}
WAITERS = [("/mcp", "2026-07-28"), ("/mcp/ledger", "legacy")]


@asynccontextmanager
async def patient(running: Running, path: str, mode: str) -> AsyncIterator[Client]:
    """A client with the time-outs it comes with."""
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {running.key}"}) as http,
        Client(streamable_http_client(running.url + path, http_client=http), mode=mode) as connected,
    ):
        yield connected


async def pending(running: Running) -> Case:
    """The one case that waits."""
    async with asyncio.timeout(10):
        while True:
            cases = (await running.app.approvals.find(status="open")).cases
            if cases:
                return cases[0]
            await asyncio.sleep(0.01)


async def decide(running: Running, choice: Choice, case: Case | None = None, guidance: str = "") -> Case:
    case = case or await pending(running)
    return await running.app.approvals.vote(
        case.id, "rita", choice, presented_digest=case.presented_digest, guidance=guidance
    )


def named(path: str) -> str:
    return "transfer" if path.endswith("ledger") else "ledger__transfer"


@pytest.mark.parametrize(("path", "mode"), WAITERS)
async def test_a_call_waits_runs_once_and_is_replayed(running: Running, path: str, mode: str) -> None:
    told: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with patient(running, path, mode) as up:
        call = asyncio.create_task(up.call_tool(named(path), LARGE, progress_callback=on_progress))
        case = await pending(running)
        assert transfers(running) == 0
        if mode == "legacy":
            async with asyncio.timeout(5):
                while not told:
                    await asyncio.sleep(0.01)
        await decide(running, Choice.APPROVE, case)
        paid = await call
        again = await up.call_tool(named(path), LARGE)
        status = await up.call_tool("gateway__approval_status", {"case_id": case.id})
    assert not paid.is_error
    assert again.structured_content == paid.structured_content
    assert status.structured_content is not None
    assert status.structured_content["state"] == "succeeded"
    assert status.structured_content["result"]["structuredContent"] == paid.structured_content
    assert transfers(running) == 1
    assert all(case.id in (message or "") for message in told)


@pytest.mark.parametrize(("path", "mode"), WAITERS)
async def test_a_denial_brings_the_reviewers_guidance(running: Running, path: str, mode: str) -> None:
    async with patient(running, path, mode) as up:
        call = asyncio.create_task(up.call_tool(named(path), LARGE))
        await decide(running, Choice.DENY, guidance="Pay in two parts.")
        assert "Pay in two parts." in told(await call)
    assert transfers(running) == 0


@pytest.mark.parametrize(("path", "mode"), WAITERS)
async def test_who_is_told_to_come_back_gets_the_answer_by_asking(running: Running, path: str, mode: str) -> None:
    async with patient(running, path, mode) as up:
        waits = await up.call_tool(named(path), LARGE)
        case = await pending(running)
        assert told(waits).startswith(f"NOT executed. Waiting for approval: case {case.id}.")
        asks = asyncio.create_task(up.call_tool("gateway__approval_status", {"case_id": case.id, "wait_s": 10}))
        await decide(running, Choice.APPROVE, case)
        status = await asks
    assert status.structured_content is not None
    assert status.structured_content["state"] == "succeeded"
    assert status.structured_content["result"]["structuredContent"]["balance_cents"] == 910_000
    assert transfers(running) == 1


@pytest.mark.parametrize("token", [None, "t"])
async def test_hanging_up_leaves_the_case_to_be_met_again(running: Running, token: str | None) -> None:
    params = {"name": "ledger__transfer", "arguments": LARGE, "_meta": {"progressToken": token} if token else {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "authorization": f"Bearer {running.key}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    async with httpx2.AsyncClient(headers=headers) as http:
        call = asyncio.create_task(http.post(f"{running.url}/mcp", json=body))
        case = await pending(running)
        call.cancel()
        await asyncio.wait([call])
        async with asyncio.timeout(5):
            while any(each.case for each in running.app.governor._running):
                await asyncio.sleep(0.01)
        assert (await pending(running)).id == case.id
        await decide(running, Choice.APPROVE, case)
        async with asyncio.timeout(5):
            while (await running.app.approvals.case(case.id)).state is not State.SUCCEEDED:
                await asyncio.sleep(0.01)
        again = await http.post(f"{running.url}/mcp", json=body)
    assert again.headers["x-gateway-replayed"] == "true"
    assert again.json()["result"]["structuredContent"]["balance_cents"] == 910_000
    assert transfers(running) == 1
