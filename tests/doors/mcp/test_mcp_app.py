"""The whole gateway with the quickstart's ledger, asked by the official SDK's client in each of its modes."""

from __future__ import annotations

import asyncio
import json
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
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from gateway.app import App
from gateway.process import Process

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


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    for name in ("policies", "tools_registry"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "gateway.yaml", tmp_path / "gateway.yaml")
    async with ledger(tmp_path / "ledger.db") as upstream:
        monkeypatch.setenv("LEDGER_URL", upstream)
        monkeypatch.setenv("LEDGER_TOKEN", "not-asked-for")
        app = App(Process(data_dir=tmp_path / "var", config=tmp_path / "gateway.yaml"))
        await app.start()
        _, key = await app.registry.keys.create("demo-agent", person=None)
        config = uvicorn.Config(app.asgi, host="127.0.0.1", port=0, lifespan="off", log_config=None)
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
