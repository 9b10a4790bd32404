"""Which door a request goes to: one bare ASGI callable in front of the hot doors; FastAPI has every other path.

Where a request's Host header is not the gateway's, its door is told why and answers with that.

`/s/{session}/…` before any hot path names the session for clients that can only set a base URL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.doors.desk import WRONG_HOST, Receive, Scope, Send
from gateway.doors.hosts import PROBES, Hosts

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

# Without `/v1` too: clients differ in what they take for the base URL.
_BARE_OPENAI = ("/chat/", "/models", "/responses", "/embeddings", "/completions", "/messages")


class Dispatcher:
    """Routes by path, first match wins: MCP, models, everything else."""

    def __init__(self, *, models: Asgi, mcp: Asgi, rest: Asgi, hosts: Hosts) -> None:
        self._hosts = hosts
        self._models = models
        self._mcp = mcp
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path not in PROBES and (refusal := self._hosts.refusal(scope["headers"])) is not None:
            scope = {**scope, WRONG_HOST: refusal}
        if path.startswith("/s/"):
            session, slash, rest = path[3:].partition("/")
            if session and slash:
                path = f"/{rest}"
                scope = {**scope, "path": path, "gateway.session": session}
        if path == "/mcp" or path.startswith("/mcp/"):
            await self._mcp(scope, receive, send)
        elif path.startswith(("/v1/", "/v1beta/")) or path.startswith(_BARE_OPENAI):
            await self._models(scope, receive, send)
        else:
            await self._rest(scope, receive, send)
