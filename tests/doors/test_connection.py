"""What a connection may cost: a client without a key gets neither memory nor a place for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn

from gateway.connection import Connection

Connect = Callable[[], Any]


async def app(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more and scope["path"] != "/early":
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    text = str(scope["headers"] if scope["path"] == "/headers" else size).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@contextlib.asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[Connect]:
    limited = type("Limited", (Connection,), limits)
    config = uvicorn.Config(app, http=limited, ws="none", lifespan="off", log_config=None)
    config.load()
    state = uvicorn.Server(config).server_state
    server = await asyncio.get_running_loop().create_server(lambda: limited(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """All until the server closes."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b"reset"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000,
        b"GET / HTTP/1.1\r\na: " + b"b" * 6000,
        b"GET /" + b"b" * 6000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 1000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"b" * 6000,
    ],
)
async def test_a_head_without_end_is_refused(head: bytes) -> None:
    async with serving(max_head_bytes=2048) as connect:
        reader, writer = await connect()
        got = asyncio.create_task(answer(reader))
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(head), 500):
                writer.write(head[start : start + 500])
                await writer.drain()
                await asyncio.sleep(0)
        assert (await got).startswith((b"HTTP/1.1 431", b"reset"))


async def test_a_large_body_is_no_head() -> None:
    async with serving(max_head_bytes=2048) as connect:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000)
        assert b"300000" in await reader.readuntil(b"300000")
        assert b"300000" in await reader.readuntil(b"300000")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nhost", b"HTTP/1.1 408"),
        (b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx", b""),
        (b"POST /early HTTP/1.1\r\ncontent-length: 9\r\n\r\nx", b"HTTP/1.1 200"),
    ],
)
async def test_a_client_that_stops_is_closed(sent: bytes, told: bytes) -> None:
    async with serving(first_byte_s=0.05, head_s=0.05, request_s=0.05, rest_s=0.05) as connect:
        reader, writer = await connect()
        writer.write(sent)
        got = await answer(reader)
        assert got.startswith(told)
        assert got or not told


async def test_a_head_that_trickles_is_not_waited_for_longer() -> None:
    async with serving(head_s=0.1) as connect:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\na: ")
        got = asyncio.create_task(answer(reader))
        while not got.done():
            writer.write(b"a")
            await asyncio.sleep(0.01)
        assert (await got).startswith((b"HTTP/1.1 408", b"reset"))


async def test_a_connection_that_keeps_to_the_rules_outlives_every_deadline() -> None:
    async with serving(first_byte_s=0.05, head_s=0.05, request_s=0.05, rest_s=0.05) as connect:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n0")
            await asyncio.sleep(0.06)


async def test_one_connection_too_many_is_told_so() -> None:
    async with serving(max_connections=1) as connect:
        first, writer = await connect()
        second, _ = await connect()
        assert (await answer(second)).startswith(b"HTTP/1.1 503")
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await first.readline()).startswith(b"HTTP/1.1 200")


async def test_trailers_are_no_headers() -> None:
    """They come after the body, so nobody may decide by them; uvicorn appends them to the headers."""
    head = b"POST /headers HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with serving() as connect:
        reader, writer = await connect()
        writer.write(head + b"1\r\nx\r\n0\r\nauthorization: Bearer stolen\r\nx-gateway-session: other\r\n\r\n")
        got = await answer(reader)
    assert b"transfer-encoding" in got
    assert b"stolen" not in got
    assert b"x-gateway-session" not in got
