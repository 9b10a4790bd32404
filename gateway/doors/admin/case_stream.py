"""Changes of cases as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

An event `case` has the id, state and version of a case, never what it is about; whoever is interested asks for it.
The stream ends with the person's session, with their role, and with the gateway. Whoever reads it reconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.approvals.case import Case
from gateway.errors import Refusal

COMMENT_EVERY_S = 15.0
_RECONNECT_MS = 2000


class Listener(Protocol):
    """Ids of cases as they change; ends when the gateway stops."""

    def __aiter__(self) -> AsyncIterator[str]: ...
    async def __anext__(self) -> str: ...
    async def aclose(self) -> None: ...


class Approvals(Protocol):
    """approvals/: who changed, and how a case stands."""

    def subscribe(self) -> Listener: ...
    async def case(self, case_id: str) -> Case: ...


class CaseStream(Response):
    """The answer: open until something ends it. `may_hear` is asked before anything is told."""

    media_type = "text/event-stream"

    def __init__(
        self, approvals: Approvals, may_hear: Callable[[], bool], comment_every_s: float = COMMENT_EVERY_S
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._approvals = approvals
        self._may_hear = may_hear
        self._comment_every_s = comment_every_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listener = self._approvals.subscribe()
        gone = asyncio.ensure_future(_gone(receive))
        changed: asyncio.Task[str | None] | None = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await _tell(send, f"retry: {_RECONNECT_MS}\n\n")
            while not gone.done():
                changed = changed or asyncio.ensure_future(anext(listener, None))
                await asyncio.wait((changed, gone), timeout=self._comment_every_s, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() or not self._may_hear():
                    break
                if not changed.done():
                    await _tell(send, ": still here\n\n")
                    continue
                case_id, changed = changed.result(), None
                if case_id is None:  # the gateway stops
                    break
                await _tell(send, await self._event(case_id))
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await listener.aclose()
            ours = [task for task in (changed, gone) if task is not None]
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)

    async def _event(self, case_id: str) -> str:
        try:
            case = await self._approvals.case(case_id)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            return ": a case that is not there\n\n"
        told = msgspec.json.encode({"id": case.id, "state": case.state.value, "version": case.version})
        return f"event: case\ndata: {told.decode()}\n\n"


async def _tell(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
