"""A whole gateway in the test's own process with the quickstart's ledger behind it, for tests of cases."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from gateway.documents import errors
from gateway.identity import Role
from gateway.quickstart.account import Ledger
from gateway.quickstart.ledger import make_server

from .gateway_house import CONFIG, ROOT, Running

LARGE = {"to": "acme-gmbh", "amount_cents": 90_000, "reference": "INV-9"}


class Lies:
    """The ledger's app, which carries out a call and then answers with something else, where a test wants it."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.answer: tuple[int, bytes] | None = None  # the status and the body, in which `$id` is the request's
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        first = await receive()
        body = first.get("body", b"")
        calls = b'"tools/call"' in body
        self.calls += calls
        messages = [first]

        async def again() -> Any:
            return messages.pop() if messages else await receive()

        async def nowhere(_: Any) -> None: ...

        if self.answer is None or not calls:
            await self._app(scope, again, send)
            return
        await self._app(scope, again, nowhere)
        status, said = self.answer
        said = said.replace(b"$id", str(json.loads(body)["id"]).encode())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": said})


@dataclass
class Bank:
    """A gateway whose agents may transfer money, larger amounts once a person agrees."""

    running: Running
    ledger_db: Path
    lies: Lies = field(default_factory=lambda: Lies(None))  # where the ledger runs in this process

    async def transfer(self, agent: httpx.AsyncClient, **changed: Any) -> httpx.Response:
        """Ask for a transfer that a person must approve; the answer tells to wait, or has the result."""
        params = {"name": "ledger__transfer", "arguments": {**LARGE, **changed}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25",
            "host": "127.0.0.1",
        }
        answer = await agent.post("/mcp", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    async def case(self, agent: httpx.AsyncClient, **changed: Any) -> str:
        """Open a case; its id."""
        answer = await self.transfer(agent, **changed)
        assert "Waiting for approval" in answer.text, answer.text
        newest = (await self.running.app.approvals.find(status="open", limit=1)).cases[0]
        assert newest.id in answer.text
        return newest.id

    def transfers(self) -> int:
        """How many the ledger has."""
        with sqlite3.connect(self.ledger_db) as connection:
            (count,) = connection.execute("SELECT count(*) FROM transfers").fetchone()
        connection.close()
        return int(count)

    async def reviewer(self, person_id: str = "rita", *roles: Role) -> httpx.AsyncClient:
        """A signed-in browser that may write."""
        async with aclosing(await self.running.person(person_id, *(roles or (Role.REVIEWER,)))) as signed_in:
            browser = self.running.client(origin="http://gateway.test")
            browser.cookies = signed_in.cookies
        return browser


@pytest.fixture(name="bank")
async def a_bank(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bank]:
    ledger = Ledger(tmp_path / "ledger.db")
    lies = Lies(make_server(ledger).streamable_http_app())
    server = uvicorn.Server(uvicorn.Config(lies, log_config=None))
    # Only of a socket that says it is TCP does asyncio send small pieces at once; else each answer takes 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    monkeypatch.setenv("LEDGER_URL", f"http://127.0.0.1:{listening.getsockname()[1]}/mcp")
    monkeypatch.setenv("LEDGER_TOKEN", "not-asked-for")
    shutil.copy(ROOT / "tools_registry" / "ledger.yaml", running.folder / "tools_registry")
    grants = running.folder / "policies" / "grants" / "data.yaml"
    granted = grants.read_text().replace("teams: {}", "teams: {finance: {servers: {ledger: {max_risk: critical}}}}")
    grants.write_text(granted)
    (running.folder / "gateway.yaml").write_text(f"{CONFIG}approvals: {{hold_s: 0.05, groups: [treasury]}}\n")
    assert errors(await running.app.reload("test")) == []
    try:
        async with asyncio.timeout(20):
            while not running.app.catalog.tools("ledger"):  # connected in the background
                await asyncio.sleep(0.01)
        yield Bank(running, tmp_path / "ledger.db", lies)
    finally:
        await running.app.tools.aclose()
        server.should_exit = True
        await serving
        listening.close()
        ledger.close()
