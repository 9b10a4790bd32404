"""Answers of all upstreams share one budget of memory: it is never passed, and always given back."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from gateway.actions import Kind, ModelTarget, Reply
from gateway.clock import SystemClock
from gateway.errors import Refusal
from gateway.upstreams import mcp_conversation
from gateway.upstreams.budget import AnswerBudget
from gateway.upstreams.credential import Credential
from gateway.upstreams.mcp_messages import RpcError, decode, mirrors_of
from gateway.upstreams.openai import OpenAiProvider, SseStream
from gateway.upstreams.performing import Performing
from gateway.upstreams.retries import Retries
from gateway.upstreams.wire import Wire
from tests.guards.test_arguments import action, tool
from tests.heartbeat import heartbeat
from tests.upstreams.origin import CHUNKED, Exchange, Origin, Request, chunk, ok
from tests.upstreams.test_tool_http import JSON, answer, event, result, server
from tests.upstreams.tool_world import World, child, http

MIB = 1024 * 1024
STALL_S = 0.1


def provider(origin: Origin, wire: Wire, budget: AnswerBudget) -> OpenAiProvider:
    return OpenAiProvider(
        "p",
        base_url=origin.url,
        credential=Credential(None, str, of="p"),
        transport=wire,
        retries=Retries(0, clock=SystemClock(), jitter=lambda: 0.0),
        clock=SystemClock(),
        budget=budget,
    )


def completion(size: int) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"content": "x" * size}}]}).encode()


async def ended(tasks: list[asyncio.Task[Any]]) -> tuple[list[Any], list[Refusal]]:
    """What tasks gave, and how they were refused. Their callbacks have run."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    refusals = [one for one in results if isinstance(one, Refusal)]
    assert len(refusals) == sum(isinstance(one, BaseException) for one in results), results
    return [one for one in results if not isinstance(one, BaseException)], refusals


async def test_models_answers_that_arrive_together_stay_within_the_budget() -> None:
    gate, arrived, body = asyncio.Event(), asyncio.Semaphore(0), completion(MIB)

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(ok(body, JSON)[: len(body) // 2])
        arrived.release()
        await gate.wait()
        await exchange.send(ok(body, JSON)[len(body) // 2 :])

    budget, wire = AnswerBudget(4 * MIB, small=2 * MIB), Wire()
    async with Origin(play) as origin:
        asking = provider(origin, wire, budget)
        target = ModelTarget(alias="m", provider="p", model="m")
        calls = [asyncio.create_task(asking.invoke(target, b"{}", stream=False, request_id="r")) for _ in range(20)]
        for _ in calls:
            await arrived.acquire()
        gate.set()
        most = 0
        while not all(call.done() for call in calls):
            most = max(most, budget.used)
            await asyncio.sleep(0)
        whole, refusals = await ended(calls)
        await wire.aclose()
    assert MIB < most <= budget.most
    assert budget.used == 0
    assert whole
    assert refusals
    assert {len(one.body) for one in whole} == {len(body)}
    for refusal in refusals:
        assert (refusal.code, refusal.http_status, refusal.retry_after_s) == ("upstream_failed", 503, 5)
        assert refusal.detail["dispatched"] == "unknown"
        assert "holds as much" in refusal.message


async def test_a_stream_is_counted_by_what_is_kept_of_it_and_given_up_where_there_is_no_room() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED)
        while True:
            await exchange.send(chunk(b"data: " + b"x" * 60_000 + b"\n\n"))

    budget, wire = AnswerBudget(MIB), Wire()

    async def read(asking: OpenAiProvider) -> None:
        target = ModelTarget(alias="m", provider="p", model="m")
        stream = await asking.invoke(target, b"{}", stream=True, request_id="r")
        assert isinstance(stream, SseStream)
        try:
            async for _ in stream:
                assert budget.used <= budget.most
        finally:
            await stream.aclose()

    async with Origin(play) as origin:
        _, refusals = await ended([asyncio.create_task(read(provider(origin, wire, budget)))])
        await wire.aclose()
    assert [one.http_status for one in refusals] == [503]
    assert budget.used == 0


@pytest.mark.parametrize("as_events", [False, True])
async def test_tools_answers_over_http_stay_within_the_budget(as_events: bool) -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        body: dict[str, Any] = {"content": [{"type": "text", "text": "x" * MIB}]}
        if as_events:
            await exchange.send(CHUNKED + event(result(message, body)))
        else:
            await answer(exchange, message, body)

    async with Origin(server(act)) as origin, World(budget=AnswerBudget(3 * MIB, small=2 * MIB)) as world:
        await world.connect(http(origin.url))
        calls = [asyncio.create_task(world.reply("echo")) for _ in range(12)]
        most = 0
        while not all(call.done() for call in calls):
            most = max(most, world.budget.used)
            await asyncio.sleep(0)
        _, refusals = await ended(calls)
        assert MIB < most <= world.budget.most
        assert world.budget.used == 0
        assert {one.http_status for one in refusals} <= {503}
        assert await world.call("echo")


async def test_tools_answers_of_a_child_stay_within_the_budget() -> None:
    async with World(budget=AnswerBudget(MIB)) as world:
        await world.connect(child())
        refusal = await world.refused("act", how="giant")
        assert (refusal.code, refusal.http_status) == ("upstream_failed", 503)
        assert world.budget.used <= world.budget.most
        assert await world.call("echo"), "the child goes on"


async def test_while_hardly_any_room_is_left_nothing_more_is_sent() -> None:
    budget = AnswerBudget(MIB, small=MIB)
    holding = budget.holding()
    assert holding.add(MIB * 31 // 32)
    performing = Performing(None, None, budget)  # type: ignore[arg-type]
    with pytest.raises(Refusal) as caught:
        await performing.perform(action(Kind.TOOL_CALL, {}), tool({}), None, "", approved=False)
    refusal = caught.value
    assert (refusal.code, refusal.http_status, refusal.retry_after_s) == ("rate_limited", 503, 5)
    assert refusal.detail["dispatched"] == "no"
    assert refusal.retry
    holding.give_back()
    budget.admit("reader")


async def test_one_agent_has_half_of_the_budget_and_large_answers_leave_a_quarter_to_small_ones() -> None:
    budget = AnswerBudget(16 * MIB, small=MIB)

    async def take(agent_id: str, size: int, gate: asyncio.Event) -> bool:
        budget.admit(agent_id)
        taken = budget.of_task().add(size)
        await gate.wait()
        return taken

    gate = asyncio.Event()
    wanted = [("a", 6), ("a", 3), ("b", 6), ("b", 1), ("c", 2), ("c", 1), ("d", 1)]
    tasks = [asyncio.create_task(take(agent_id, size * MIB, gate)) for agent_id, size in wanted]
    await asyncio.sleep(0)
    assert budget.used_by == {"a": 6 * MIB, "b": 7 * MIB, "c": MIB, "d": MIB}
    gate.set()
    assert await asyncio.gather(*tasks) == [True, False, True, True, False, True, True]
    await asyncio.sleep(0)
    assert (budget.used, budget.used_by) == (0, {})


async def test_large_answers_at_once_hold_up_nobody() -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        start = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"x":"' % message["id"]
        length = len(start) + 8 * MIB + 3
        await exchange.send(b"HTTP/1.1 200 OK\r\n%b\r\ncontent-length: %d\r\n\r\n" % (JSON, length) + start)
        for _ in range(8 * MIB // len(piece)):  # in pieces, so that the server itself holds up nobody
            await exchange.send(piece)
        await exchange.send(b'"}}')

    piece = b"x" * 65536
    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url))
        async with heartbeat() as beating:
            calls = [asyncio.create_task(world.reply("echo")) for _ in range(8)]
            replies, _ = await ended(calls)
    assert len(replies) == 8
    assert all(isinstance(one, Reply) and len(one.body) > 8 * MIB for one in replies)
    assert beating.longest_s < STALL_S


async def test_an_answer_of_very_many_parts_is_refused_before_it_is_read() -> None:
    async def play(exchange: Exchange) -> None:
        while True:
            request = await exchange.request()
            message = json.loads(request.body)
            if message["method"] == "server/discover":
                await answer(exchange, message, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
            else:
                await answer(exchange, message, {"tools": [[[]]] * 200_000})

    async with Origin(play) as origin, World() as world:
        world.servers.configure([http(origin.url)])
        await world.until(lambda: any("objects and arrays" in reason for _, _, reason in world.reports))


def test_what_an_error_says_in_detail_is_read_only_where_it_is_short() -> None:
    short, long = ({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "data": ["x"] * n}} for n in (10, 100_000))
    for message, data in ((short, ["x"] * 10), (long, None)):
        with pytest.raises(RpcError) as caught:
            decode(json.dumps(message).encode()).outcome()
        assert caught.value.data == data


def test_headers_of_a_deep_and_wide_schema_are_found_in_time_that_grows_with_it() -> None:
    """Each property had a copy of its path: 650 MB for a schema of 1 MB."""
    properties: dict[str, Any] = {f"p{number}": {"type": "string"} for number in range(20_000)}
    properties["last"] = {"type": "string", "x-mcp-header": "last"}
    schema: dict[str, Any] = {"properties": properties}
    for _ in range(900):
        schema = {"properties": {"a": schema}}
    tracemalloc.start()
    (mirror,) = mirrors_of({"inputSchema": schema})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mirror.path == ("a",) * 900 + ("last",)
    assert most < 20 * MIB


@pytest.mark.parametrize(("endless", "words"), [(True, "larger than 1000 bytes"), (False, "has no end")])
async def test_a_list_has_most_bytes_and_no_page_twice(
    monkeypatch: pytest.MonkeyPatch, endless: bool, words: str
) -> None:
    monkeypatch.setattr(mcp_conversation, "MAX_LIST_BYTES", 1000)
    pages = iter(range(100))

    async def play(exchange: Exchange) -> None:
        while True:
            request = await exchange.request()
            message = json.loads(request.body)
            if message["method"] == "server/discover":
                await answer(exchange, message, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
            else:
                tools = [{"name": f"t{next(pages)}", "inputSchema": {}}] if endless else []
                await answer(exchange, message, {"tools": tools, "nextCursor": f"c{next(pages)}" if endless else "c"})

    async with Origin(play) as origin, World() as world:
        world.servers.configure([http(origin.url)])
        await world.until(lambda: any(words in reason for _, _, reason in world.reports))
        assert len(origin.requests) < 40
