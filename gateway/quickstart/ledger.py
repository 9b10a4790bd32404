"""The quickstart's tool server: a small bank account behind MCP, kept in SQLite.

    python -m gateway.quickstart.ledger --db var/ledger.db --port 8090

It is a tool server like any other: a process of its own, built on the MCP SDK, with a credential of its own
(`LEDGER_TOKEN`). It does what it is told, also by the wrong payee's friend: who may pay whom is the gateway's
policy to decide. Every transfer that truly happened is one row of the table `transfers`.

Faults for drills: `--fault die-after:transfer` executes and dies before it answers; see `Fault`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import mcp.types as types
import uvicorn
from mcp.server.lowlevel import Server

from gateway import environment
from gateway.quickstart.account import TOOLS, Declined, Ledger
from gateway.settings import UnresolvedReference, resolve

TOKEN_REFERENCE = "env:LEDGER_TOKEN"  # noqa: S105 - where it stands, not what it is
FAULTS = ("delay", "die-before", "die-after", "hang-after")


class Fault(NamedTuple):
    """What goes wrong at a tool: `delay` waits before executing, `die-before` and `die-after` end the process
    before or after executing, `hang-after` executes and never answers. `seconds` is for delay."""

    kind: str
    tool: str
    seconds: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """`kind:tool` or `delay:tool:seconds`."""
        kind, tool, *rest = text.split(":")
        if kind not in FAULTS or tool not in TOOLS or len(rest) > 1:
            raise argparse.ArgumentTypeError(f"write one of {', '.join(FAULTS)}, a colon and a tool's name")
        return cls(kind, tool, float(rest[0]) if rest else 1.0)


def make_server(ledger: Ledger, faults: tuple[Fault, ...] = ()) -> Server[Any]:
    """The MCP server over a ledger."""

    async def list_tools(_ctx: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=list(TOOLS.values()))

    async def call_tool(_ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name not in TOOLS:
            return _declined(f"Unknown tool: {params.name}")
        arguments = params.arguments or {}
        unknown = arguments.keys() - TOOLS[params.name].input_schema["properties"].keys()
        if unknown:
            return _declined(f"Unknown argument: {min(unknown)}")
        await _before(faults, params.name)
        try:
            answer = getattr(ledger, params.name)(**arguments)
        except Declined as declined:
            return _declined(str(declined))
        await _after(faults, params.name)
        content = types.TextContent(type="text", text=json.dumps(answer, separators=(",", ":")))
        return types.CallToolResult(content=[content], structured_content=answer)

    def schema(name: str) -> dict[str, Any] | None:
        tool = TOOLS.get(name)
        return None if tool is None else tool.input_schema

    return Server("ledger", version="1", on_list_tools=list_tools, on_call_tool=call_tool, get_tool_input_schema=schema)


def _declined(message: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=message)], is_error=True)


async def _before(faults: tuple[Fault, ...], tool: str) -> None:
    for fault in faults:
        if fault.tool == tool and fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        if fault.tool == tool and fault.kind == "die-before":
            os.kill(os.getpid(), signal.SIGKILL)


async def _after(faults: tuple[Fault, ...], tool: str) -> None:
    for fault in faults:
        if fault.tool == tool and fault.kind == "die-after":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.tool == tool and fault.kind == "hang-after":
            await asyncio.Event().wait()


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class RequireToken:
    """Lets only those in who have the ledger's own credential."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": b"This ledger wants its own credential."})
                return
        await self._app(scope, receive, send)


def serve(ledger: Ledger, *, port: int, token: str | None, faults: tuple[Fault, ...], until_stdin: bool) -> None:
    """Serve on 127.0.0.1 until told to stop; prints one line of JSON when ready. Port 0 takes a free one."""
    server = make_server(ledger, faults)
    app: Any = server.streamable_http_app()
    if token:
        app = RequireToken(app, token)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listener:
        if until_stdin:
            threading.Thread(target=_watch_stdin, args=(running,), daemon=True).start()
        port = listener.getsockname()[1]
        # The socket listens already: whoever reads this may connect.
        ready = {"ready": True, "url": f"http://127.0.0.1:{port}/mcp", "port": port}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        running.run(sockets=[listener])


def _watch_stdin(running: uvicorn.Server) -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    running.should_exit = True


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m gateway.quickstart.ledger`."""
    parser = argparse.ArgumentParser(prog="python -m gateway.quickstart.ledger", description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="SQLite file; made if it is not there")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--fault", type=Fault.parse, action="append", default=[], help="e.g. die-after:transfer")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input closes")
    given = parser.parse_args(argv)
    environment.take()
    environment.forbid_inspection()
    try:
        token: str | None = resolve(TOKEN_REFERENCE)
    except UnresolvedReference:
        token = None
    ledger = Ledger(given.db)
    try:
        serve(ledger, port=given.port, token=token, faults=tuple(given.fault), until_stdin=given.until_stdin_closes)
    finally:
        ledger.close()


if __name__ == "__main__":
    main()
