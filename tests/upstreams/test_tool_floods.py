"""Tool servers that send what nobody asked for, as fast as they can: others are served meanwhile, and nothing piles up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.upstreams import mcp_http
from gateway.upstreams.outbox import MAX_NOTICES, MAX_REPLIES, Outbox
from gateway.upstreams.pacing import MOST_PER_S
from gateway.upstreams.sse import data_of
from tests.heartbeat import heartbeat
from tests.upstreams.origin import CHUNKED, END, Exchange, Origin, Request, chunk
from tests.upstreams.test_tool_http import event, result, server
from tests.upstreams.tool_world import World, child, http

PING = b'{"jsonrpc":"2.0","id":"p","method":"ping"}'
CHANGED = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
STALL_S = 0.1


@pytest.mark.parametrize("said", [PING, CHANGED], ids=["requests", "notifications"])
async def test_a_flood_within_a_call_makes_no_tasks_and_the_answer_still_arrives(said: bytes) -> None:
    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(CHUNKED + event(said) * (MOST_PER_S - 50) + event(result(message, {"content": []})) + END)

    async with Origin(server(act, modern=False)) as origin, World() as world:
        await world.connect(http(origin.url))
        before = len(asyncio.all_tasks())
        async with heartbeat() as beating:
            calling = asyncio.create_task(world.call("echo"))
            most = 0
            while not calling.done():
                await asyncio.sleep(0)
                most = max(most, len(asyncio.all_tasks()))
        assert calling.result() == {"content": []}
        # The call, the heartbeat, the outbox, and the origin's own connections.
        assert most - before < 40
        assert beating.longest_s < STALL_S


async def test_a_call_whose_stream_never_comes_to_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_http, "MOST_PER_CALL", 300)

    async def act(exchange: Exchange, message: dict[str, Any], request: Request) -> None:
        await exchange.send(CHUNKED)
        while True:
            await exchange.send(chunk((b"data: " + CHANGED + b"\n\n") * 100))

    async with Origin(server(act)) as origin, World() as world:
        await world.connect(http(origin.url))
        refusal = await world.refused("echo")
    assert refusal.code == "upstream_failed"
    assert "before its answer" in refusal.message


async def test_an_outbox_keeps_one_task_and_a_bounded_number_of_messages() -> None:
    sent: list[bytes] = []
    gate = asyncio.Event()

    async def post(body: bytes) -> None:
        await gate.wait()
        sent.append(body)

    outbox = Outbox(post)
    before = len(asyncio.all_tasks())
    for number in range(10_000):
        outbox.reply(b"r%d" % number)
        outbox.notice(b"n%d" % number)
    outbox.reply(b"x" * 100_000)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before + 1
    gate.set()
    async with asyncio.timeout(5):
        while len(sent) < MAX_NOTICES + MAX_REPLIES:
            await asyncio.sleep(0)
    await outbox.aclose()
    assert len(sent) <= MAX_NOTICES + MAX_REPLIES + 2
    assert all(len(body) < 10 for body in sent)


@pytest.mark.parametrize("how", ["flood-pings", "flood-lines", "flood-blank", "flood-stderr"])
async def test_a_child_that_floods_holds_up_nobody(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        await world.connect(child())
        async with heartbeat() as beating:
            calling = asyncio.create_task(world.reply("act", how=how))
            while not calling.done() and beating.beats < 500:
                await asyncio.sleep(0.001)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
        stdin = world.servers._links["s"]._server._process.stdin  # type: ignore[union-attr]
        assert stdin.transport.get_write_buffer_size() < 256 * 1024
    assert beating.longest_s < STALL_S
    assert len(caplog.records) < 500


async def test_a_piece_with_very_many_events_is_taken_in_turns() -> None:
    async def pieces() -> Any:
        yield b"data:1\n\n" * 200_000

    count = 0
    async with heartbeat() as beating:
        async for _ in data_of(pieces(), 1000):
            count += 1
    assert count == 200_000
    assert beating.beats > 20
    assert beating.longest_s < STALL_S
