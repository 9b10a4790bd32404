from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.doors.admin.case_stream import CaseStream
from gateway.identity import Role

from ..bank_house import Bank


class Heard:
    """A client of the stream, at the ASGI interface; `hang_up` is what a closed connection looks like there."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.hang_up = asyncio.Event()
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.sent.put(message)

    async def chunk(self) -> str:
        async with asyncio.timeout(10):
            return str((await self.sent.get())["body"].decode())

    async def case(self) -> dict[str, Any]:
        """The next event, past comments."""
        while not (text := await self.chunk()).startswith("event: case\n"):
            pass
        told: dict[str, Any] = json.loads(text.split("data: ", 1)[1])
        return told


def stream_scope(browser: httpx.AsyncClient) -> dict[str, Any]:
    request = browser.build_request("GET", "/api/v1/approvals/stream")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/v1/approvals/stream",
        "raw_path": b"/api/v1/approvals/stream",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 1),
        "server": ("gateway.test", 80),
        "state": {},
    }


@asynccontextmanager
async def listening(bank: Bank, browser: httpx.AsyncClient) -> AsyncIterator[tuple[Heard, asyncio.Task[None]]]:
    heard = Heard()

    async def serve() -> None:
        await bank.running.app.asgi(stream_scope(browser), heard.receive, heard.send)

    task = asyncio.create_task(serve())
    try:
        async with asyncio.timeout(10):
            start = await heard.sent.get()
        assert start["status"] == 200
        assert dict(start["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert await heard.chunk() == "retry: 2000\n\n"
        yield heard, task
    finally:
        heard.hang_up.set()
        async with asyncio.timeout(10):
            await task


async def test_changes_are_told_as_they_happen_and_nothing_of_the_content(bank: Bank) -> None:
    async with (
        await bank.running.agent() as agent,
        await bank.reviewer() as rita,
        listening(bank, rita) as (heard, _),
    ):
        case_id = await bank.case(agent)
        assert await heard.case() == {"id": case_id, "state": "pending", "version": 1}
        await agent.post(f"/api/v1/actions/{case_id}/cancel")
        assert (await heard.case())["state"] == "cancelled"


async def test_who_hangs_up_leaves_no_task_behind(bank: Bank) -> None:
    async with await bank.reviewer() as rita:
        before = asyncio.all_tasks()
        async with listening(bank, rita):
            pass
        assert asyncio.all_tasks() <= before


async def test_it_ends_when_the_gateway_stops(bank: Bank) -> None:
    async with await bank.reviewer() as rita, listening(bank, rita) as (_, task):
        bank.running.app.stopping()
        async with asyncio.timeout(10):
            await task


async def test_it_ends_with_the_session_before_anything_more_is_told(bank: Bank) -> None:
    async with (
        await bank.running.agent() as agent,
        await bank.reviewer() as rita,
        listening(bank, rita) as (heard, task),
    ):
        await bank.running.app.registry.people.remove("rita", by="operator")
        await bank.case(agent)
        async with asyncio.timeout(10):
            await task
        assert (await heard.sent.get())["body"] == b""


async def test_a_comment_keeps_a_quiet_stream_open(bank: Bank) -> None:
    heard, may_hear = Heard(), [True, True, False]
    stream = CaseStream(bank.running.app.approvals, lambda: may_hear.pop(0), comment_every_s=0.01)
    async with asyncio.timeout(10):
        await stream({"type": "http"}, heard.receive, heard.send)
    bodies = [heard.sent.get_nowait().get("body") for _ in range(heard.sent.qsize())]
    assert bodies == [None, b"retry: 2000\n\n", b": still here\n\n", b": still here\n\n", b""]


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.OWNER])
async def test_only_who_may_read_cases_may_listen(bank: Bank, role: Role) -> None:
    async with await bank.reviewer("opal", role) as opal:
        answer = await opal.get("/api/v1/approvals/stream")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
