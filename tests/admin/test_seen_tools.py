"""What agents declare is listed for people, in pages, and nothing of it can break an answer's headers."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import httpx
import pytest

from gateway.app import App
from gateway.catalog import seen_tool
from gateway.identity import Role

from ..gateway_house import Running

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


async def declare(agent: httpx.AsyncClient, *names: str, **more: Any) -> httpx.Response:
    tools = [
        {"type": "function", "function": {"name": name, "description": f"About {name}.", "parameters": SCHEMA}}
        for name in names
    ]
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "tools": tools, **more}
    return await agent.post("/v1/chat/completions", json=body)


async def test_a_tool_that_an_agent_declares_is_listed_in_its_own_words(running: Running) -> None:
    reader, writer = await running.agent(), await running.agent("writer")
    async with running.operator() as operator, reader, writer:
        assert (await operator.get("/api/v1/tools/seen")).json() == []
        assert (await declare(reader, "open_file")).status_code == 200
        assert (await declare(reader, "open_file")).status_code == 200
        await declare(writer, "open_file", "paint", stream=True)
        found = (await operator.get("/api/v1/tools/seen")).json()
        assert [one["id"] for one in found] == ["reader:open_file", "writer:open_file", "writer:paint"]
        first = found[0]
        assert (first["agent"], first["tool"], first["description"]) == ("reader", "open_file", "About open_file.")
        assert first["parameters"] == SCHEMA
        assert first["count"] == 2
        assert first["first_seen"] < first["last_seen"]
        of_writer = (await operator.get("/api/v1/tools/seen", params={"agent": "writer"})).json()
        assert [one["tool"] for one in of_writer] == ["open_file", "paint"]


async def test_what_is_not_allowed_is_not_noted(running: Running) -> None:
    reader = await running.agent()
    async with running.operator() as operator, reader:
        assert (await declare(reader, "open_file", model="none")).status_code == 404
        assert (await declare(reader, "gateway__approval_status")).status_code == 200
        await operator.post("/api/v1/agents/reader/suspend", json={})
        assert (await declare(reader, "open_file")).status_code == 403
        assert (await operator.get("/api/v1/tools/seen")).json() == []


@pytest.mark.parametrize("role", list(Role))
async def test_whoever_is_signed_in_may_look_and_nobody_else(running: Running, role: Role) -> None:
    async with aclosing(await running.person("pat", role)) as person, running.client() as nobody:
        assert (await person.get("/api/v1/tools/seen")).status_code == 200
        assert (await nobody.get("/api/v1/tools/seen")).status_code == 401


async def test_pages_lead_on_whatever_the_names_are(running: Running) -> None:
    names = ["a", "a:b", "x/../y", "z" * 128, "...", "///", "-"]
    reader = await running.agent()
    async with running.operator() as operator, reader:
        assert (await declare(reader, *names)).status_code == 200
        found: list[str] = []
        url: str | None = "/api/v1/tools/seen?limit=1&agent=reader"
        while url is not None:
            answer = await operator.get(url)
            assert answer.status_code == 200
            found += [one["tool"] for one in answer.json()]
            url = answer.links["next"]["url"] if "next" in answer.links else None
        assert sorted(found) == sorted(names)


async def test_a_name_that_no_tool_may_have_is_refused_and_not_noted(running: Running) -> None:
    reader = await running.agent()
    async with running.operator() as operator, reader:
        for name in ("", "a b", "\r\nx-evil: 1", "é\u202e", "z" * 129, "😀", "/?&=#%", "a\n"):
            answer = await declare(reader, "open_file", name)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "tools[1].function.name"
        assert (await operator.get("/api/v1/tools/seen")).json() == []


async def test_a_gateway_that_starts_again_still_knows_what_it_saw(running: Running) -> None:
    reader = await running.agent()
    async with reader:
        await declare(reader, "open_file")
    await running.app.stop(1)
    again = App(running.app.process)
    await again.start()
    try:
        async with Running(again, running.folder).operator() as operator:
            found = (await operator.get("/api/v1/tools/seen")).json()
        assert [(one["id"], one["count"]) for one in found] == [("reader:open_file", 1)]
    finally:
        await again.stop(1)


async def test_a_disk_that_has_failed_fails_no_list_and_no_note(running: Running) -> None:
    reader = await running.agent()
    async with running.operator() as operator, reader:
        await declare(reader, "open_file")
        running.app.writer.latch("the test says so")
        await running.app.seen.save()
        assert [one["tool"] for one in (await operator.get("/api/v1/tools/seen")).json()] == ["open_file"]


async def test_what_no_database_can_hold_keeps_nobody_elses_tools_from_being_saved(running: Running) -> None:
    reader, writer = await running.agent(), await running.agent("writer")
    function = {"name": "open_file", "description": "a\x00b", "parameters": SCHEMA}
    async with reader, writer:
        await declare(reader, "a\x00b")
        await declare(reader, tools=[{"type": "function", "function": function}])
        await declare(writer, "paint")
    await running.app.seen.save()
    saved = await running.app.writer.read(seen_tool.rows)
    assert sorted(one.id for one in saved) == ["reader:open_file", "writer:paint"]
