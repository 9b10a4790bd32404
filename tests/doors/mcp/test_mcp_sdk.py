"""The official SDK's client, unmodified, against the door behind a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import TextContent

from gateway.actions import Action, Decision, Effect
from gateway.errors import Refusal
from tests.doors.mcp.house import KEY, House, tool
from tests.doors.mcp.person import ARGUMENTS, CASE, QUICK, Person

MODES = [("2026-07-28", "2026-07-28"), ("auto", "2026-07-28"), ("legacy", "2025-11-25")]


@asynccontextmanager
async def client(url: str, mode: str, key: str = KEY) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=10) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, cache=None) as connected,
    ):
        yield connected


@pytest.mark.parametrize(("mode", "version"), MODES)
async def test_the_sdk_lists_and_calls_under_both_name_forms(house: House, mode: str, version: str) -> None:
    async with house.serving() as base:
        for path, name in (("/mcp", "ledger__transfer"), ("/mcp/ledger", "transfer")):
            async with client(base + path, mode) as up:
                assert up.protocol_version == version
                assert name in [each.name for each in (await up.list_tools()).tools]
                result = await up.call_tool(name, {"to": "ada", "amount_cents": 5})
                assert not result.is_error
                assert result.structured_content == {"to": "ada", "amount_cents": 5}
    assert [action.arguments for action in house.rooms.performed] == [{"to": "ada", "amount_cents": 5}] * 2
    assert house.codes == []


@pytest.mark.parametrize(("mode", "_"), MODES)
async def test_the_sdk_sees_refusals_as_a_model_should(house: House, mode: str, _: str) -> None:
    house.rooms.decisions["ledger__transfer"] = Decision(
        effect=Effect.DENY, rules=("transfer.payee",), reasons=("Pay a listed payee instead.",)
    )
    house.rooms.add(tool("ledger", "close"), decision=Decision(effect=Effect.DENY, hidden=True))
    async with house.serving() as base, client(f"{base}/mcp", mode) as up:
        denied = await up.call_tool("ledger__transfer", {"to": "eve"})
        assert denied.is_error
        assert isinstance(denied.content[0], TextContent)
        assert "Pay a listed payee instead." in denied.content[0].text
        assert denied.meta is not None
        assert denied.meta["gateway/code"] == "denied_by_policy"
        for name in ("ledger__close", "ledger__nix"):
            with pytest.raises(MCPError, match=f"Unknown tool: {name}") as unknown:
                await up.call_tool(name, {})
            assert unknown.value.error.code == -32602
        with pytest.raises(MCPError) as refused:
            await up.list_prompts()
        assert refused.value.error.code == -32601


async def test_the_sdk_pings_in_a_session_and_ends_it(house: House) -> None:
    async with house.serving() as base, client(f"{base}/mcp", "legacy") as up:
        with pytest.warns(MCPDeprecationWarning):
            await up.send_ping()
        await up.call_tool("git__log", {})
    assert house.rooms.performed[0].session.source == "client"


async def test_the_sdk_repeats_arguments_in_headers_where_the_schema_asks(house: House) -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    house.rooms.add(tool("sql", "run", inputSchema=schema))
    async with house.serving() as base, client(f"{base}/mcp", "auto") as up:
        await up.list_tools()
        assert not (await up.call_tool("sql__run", {"region": " süd "})).is_error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdk_learns_of_a_bad_key(house: House, mode: str) -> None:
    async with house.serving() as base:
        told = pytest.RaisesExc(MCPError, match="not known")
        with pytest.RaisesGroup(told, flatten_subgroups=True, allow_unwrapped=True):
            async with client(f"{base}/mcp", mode, key="nobody"):
                raise AssertionError
    assert house.rooms.strangers >= 1


async def test_a_tool_that_dies_mid_call_is_told_and_the_next_call_works(house: House) -> None:
    async def die(_: Action) -> bytes:
        raise Refusal("upstream_failed", "The tool server ended in the middle of the call.")

    house.rooms.add(tool("x", "dies"), die)
    async with house.serving() as base, client(f"{base}/mcp", "auto") as up:
        assert (await up.call_tool("x__dies", {})).is_error
        assert not (await up.call_tool("git__log", {})).is_error


# ------------------------------------------------------------ waiting for a person


@asynccontextmanager
async def patient(url: str, mode: str) -> AsyncIterator[Client]:
    """A client with the time-outs it comes with."""
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {KEY}"}) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as connected,
    ):
        yield connected


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(("mode", "_"), MODES)
async def test_the_sdk_waits_for_a_person_and_gets_the_one_answer(mode: str, _: str, tells: bool) -> None:
    person = Person()
    person.silent_s = 5.0
    house = House(governor=person, ladder=QUICK._replace(legs=100))
    told: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)
        if len(told) == 3:
            person.say()

    async with house.serving() as base, patient(f"{base}/mcp", mode) as up:
        await up.list_tools()
        if not tells or mode != "legacy":
            asyncio.get_running_loop().call_later(0.1, person.say)
        result = await up.call_tool("ledger__transfer", ARGUMENTS, progress_callback=on_progress if tells else None)
    assert not result.is_error
    assert isinstance(result.content[0], TextContent)
    assert result.content[0].text == "paid"
    if mode == "legacy":
        assert len(person.running) == 1
        assert told[:3] == ([f"Waiting for approval: case {CASE}."] * 3 if tells else [])
    else:
        assert len(person.running) > 1


@pytest.mark.parametrize(("mode", "_"), MODES)
async def test_the_sdk_is_told_to_come_back_and_asks_for_the_status(mode: str, _: str) -> None:
    person = Person()
    house = House(governor=person, ladder=QUICK)
    async with house.serving() as base, patient(f"{base}/mcp/ledger", mode) as up:
        waits = await up.call_tool("transfer", ARGUMENTS)
        assert waits.is_error
        assert waits.meta is not None
        person.status = {
            "case_id": waits.meta["gateway/case"],
            "state": "succeeded",
            "guidance": "",
            "expires_at": waits.meta["gateway/expires"],
            "result": b'{"content":[{"type":"text","text":"paid"}]}',
        }
        status = await up.call_tool("gateway__approval_status", {"case_id": waits.meta["gateway/case"], "wait_s": 0})
    assert not status.is_error
    assert status.structured_content is not None
    assert status.structured_content["result"]["content"][0]["text"] == "paid"
