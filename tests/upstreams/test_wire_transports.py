"""What both transports promise, played against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.upstreams.wire import Answer, Transport, Wire, WireError, WireFailed, WireTimeout, WireTooLarge
from gateway.upstreams.wire_aiohttp import WireAiohttp
from tests.upstreams.origin import CHUNKED, END, Exchange, Origin, Player, always, chunk, ok

MAKERS: dict[str, Callable[..., Transport]] = {"wire": Wire, "aiohttp": WireAiohttp}


@pytest.fixture(params=list(MAKERS))
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    transport = MAKERS[request.param]()
    yield transport
    await transport.aclose()


async def post(client: Transport, url: str, body: bytes = b"{}", **more: Any) -> Answer:
    limits: dict[str, Any] = {
        "connect_timeout_s": 5.0,
        "first_byte_timeout_s": 5.0,
        "idle_timeout_s": 5.0,
        "resend": False,
    }
    headers = more.pop("headers", [(b"content-type", b"application/json")])
    return await client.request(more.pop("method", "POST"), url, headers, body, **{**limits, **more})


async def whole(client: Transport, url: str, body: bytes = b"{}", **more: Any) -> tuple[int, bytes]:
    answer = await post(client, url, body, **more)
    data = await answer.read(1 << 24)
    await answer.aclose()
    return answer.status, data


async def test_a_request_arrives_as_it_was_given_and_nothing_is_added(client: Transport) -> None:
    async with Origin(always(ok(b"fine", b"X-Told: yes"))) as origin:
        answer = await post(client, origin.url + "/v1/x?y=%20z", b'{"a":1}', headers=[(b"x-a", b"1"), (b"x-a", b"2")])
        assert (answer.status, answer.header(b"x-told"), await answer.read(10)) == (200, b"yes", b"fine")
        await answer.aclose()
    [request] = origin.requests
    assert request.head.startswith(b"POST /v1/x?y=%20z HTTP/1.1\r\n")
    names = sorted(line.split(b":")[0].lower() for line in request.head.split(b"\r\n")[1:-2])
    assert names == [b"content-length", b"host", b"x-a", b"x-a"]
    assert request.body == b'{"a":1}'


async def test_any_status_is_an_answer_and_redirects_are_not_followed(client: Transport) -> None:
    for status in (b"204 No Content", b"302 Found", b"404 Not Found", b"503 Busy"):
        answer = ok(b"", b"location: /elsewhere", status=status)
        if status.startswith(b"204"):
            answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        async with Origin(always(answer)) as origin:
            assert await whole(client, origin.url + "/") == (int(status[:3]), b"")
            assert len(origin.requests) == 1


async def test_connections_are_kept_alive(client: Transport) -> None:
    async with Origin(always(ok(b"again"))) as origin:
        for _ in range(5):
            assert await whole(client, origin.url + "/") == (200, b"again")
        assert origin.connections == 1


async def test_a_get_has_no_body_and_a_delete_neither(client: Transport) -> None:
    async with Origin(always(ok(b"x"))) as origin:
        for method in ("GET", "DELETE"):
            await whole(client, origin.url + "/", b"", method=method)
    assert all(request.header("content-length") in (None, "0") for request in origin.requests)
    assert not any(request.header("transfer-encoding") for request in origin.requests)


async def test_interim_answers_are_skipped(client: Transport) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with Origin(always(early + ok(b"real"))) as origin:
        answer = await post(client, origin.url + "/")
        assert (answer.status, answer.header(b"link"), await answer.read(10)) == (200, None, b"real")
        await answer.aclose()


ANSWERS = {
    "length": ok(b"data: one\n\ndata: two\n\n", b"x-a: b"),
    "chunked": CHUNKED + chunk(b"data: one\n\n") + chunk(b"data: two\n\n") + END,
    "trailers": CHUNKED + chunk(b"data: one\n\ndata: two\n\n") + b"0\r\nx-late: 1\r\n\r\n",
    "extension": CHUNKED + b"16;a=b\r\ndata: one\n\ndata: two\n\n\r\n" + END,
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_may_be_cut_at_any_byte(client: Transport, kind: str) -> None:
    raw = ANSWERS[kind]
    cuts = iter(range(1, len(raw)))

    async def play(exchange: Exchange) -> None:
        for cut in cuts:
            await exchange.request()
            await exchange.send(raw[:cut])
            await asyncio.sleep(0)
            await exchange.send(raw[cut:])

    async with Origin(play) as origin:
        for _ in range(1, len(raw)):
            assert await whole(client, origin.url + "/") == (200, b"data: one\n\ndata: two\n\n")
        assert origin.connections == 1


async def test_an_answer_may_come_byte_by_byte(client: Transport) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        for byte in ANSWERS["chunked"]:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0)

    async with Origin(play) as origin:
        assert await whole(client, origin.url + "/") == (200, b"data: one\n\ndata: two\n\n")


async def test_an_answer_may_end_with_its_connection(client: Transport) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(b"HTTP/1.1 200 OK\r\nx-a: b\r\n\r\nall of")
        await exchange.send(b" it")

    async with Origin(play) as origin:
        for number in range(1, 3):
            assert await whole(client, origin.url + "/") == (200, b"all of it")
            assert origin.connections == number


async def test_a_chunk_is_passed_on_before_the_next_one_is_sent(client: Transport) -> None:
    seen = asyncio.Queue[bytes]()

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED)
        for i in range(5):
            piece = b"data: %d\n\n" % i
            await exchange.send(chunk(piece))
            assert await asyncio.wait_for(seen.get(), 5) == piece
        await exchange.send(END)

    async with Origin(play) as origin:
        answer = await post(client, origin.url + "/")
        async for piece in answer:
            seen.put_nowait(piece)
        await answer.aclose()


DROPS: dict[str, tuple[bytes, bool]] = {
    "before anything": (b"", False),
    "in the status line": (b"HTTP/1.1 20", True),
    "in the headers": (b"HTTP/1.1 200 OK\r\ncontent-le", True),
    "before the body": (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", True),
    "in the body": (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", True),
    "before a chunk": (CHUNKED, True),
    "in a chunk's size": (CHUNKED + b"1", True),
    "in a chunk": (CHUNKED + b"10\r\nabc", True),
    "after a chunk": (CHUNKED + chunk(b"abc"), True),
    "in the end": (CHUNKED + chunk(b"abc") + b"0\r\n", True),
}


@pytest.mark.parametrize("point", DROPS)
async def test_a_connection_that_drops_is_a_failure_wherever_it_drops(client: Transport, point: str) -> None:
    sent, answered = DROPS[point]

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(sent)

    async with Origin(play) as origin:
        with pytest.raises(WireFailed) as caught:
            await whole(client, origin.url + "/")
        assert caught.value.dispatched
        if isinstance(client, Wire):
            assert caught.value.answered == answered
        assert len(origin.requests) == 1


async def test_what_came_before_a_drop_is_delivered_first(client: Transport) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + chunk(b"abc"))

    async with Origin(play) as origin:
        answer = await post(client, origin.url + "/")
        assert await anext(aiter(answer)) == b"abc"
        with pytest.raises(WireFailed):
            await anext(aiter(answer))
        await answer.aclose()


@pytest.mark.parametrize(
    "odd",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
async def test_what_is_not_http_is_a_failure(client: Transport, odd: bytes) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(odd)
        await exchange.hung_up()

    async with Origin(play) as origin:
        with pytest.raises(WireFailed):
            await whole(client, origin.url + "/")


async def test_a_head_without_end_is_refused(client: Transport) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(b"HTTP/1.1 200 OK\r\nx-long: ")
        for _ in range(64):
            await exchange.send(b"x" * 16384)
        await exchange.hung_up()

    async with Origin(play) as origin:
        with pytest.raises(WireFailed):
            await whole(client, origin.url + "/")


async def test_a_body_over_the_cap_is_refused_and_its_connection_closed(client: Transport) -> None:
    closed = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + chunk(b"x" * 1000))
        await exchange.send(chunk(b"x" * 1000))
        await exchange.hung_up()
        closed.set()

    async with Origin(play) as origin:
        answer = await post(client, origin.url + "/")
        with pytest.raises(WireTooLarge):
            await answer.read(1500)
        await asyncio.wait_for(closed.wait(), 5)
        await answer.aclose()


async def test_a_body_of_exactly_the_cap_passes(client: Transport) -> None:
    async with Origin(always(ok(b"x" * 1000))) as origin:
        answer = await post(client, origin.url + "/")
        assert len(await answer.read(1000)) == 1000
        await answer.aclose()


async def silent_before_the_head(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.hung_up()


async def silent_in_the_head(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    await exchange.hung_up()


async def silent_in_the_body(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(CHUNKED + chunk(b"abc"))
    await exchange.hung_up()


@pytest.mark.parametrize(
    ("player", "phase"),
    [(silent_before_the_head, "first_byte"), (silent_in_the_head, "first_byte"), (silent_in_the_body, "idle")],
)
async def test_silence_ends_in_a_timeout_that_names_its_phase(client: Transport, player: Player, phase: str) -> None:
    async with Origin(player) as origin:
        limits: dict[str, Any] = {"connect_timeout_s": 0.05, "first_byte_timeout_s": 0.05, "idle_timeout_s": 0.05}
        with pytest.raises(WireTimeout) as caught:
            await whole(client, origin.url + "/", **limits)
        assert (caught.value.phase, caught.value.dispatched) == (phase, True)


async def test_a_server_that_is_not_there_was_certainly_not_reached(client: Transport) -> None:
    async with Origin(always(b"")) as origin:
        url = origin.url
    with pytest.raises(WireFailed) as caught:
        await whole(client, url + "/")
    assert not caught.value.dispatched
    assert "127.0.0.1" not in str(caught.value)


async def test_a_name_that_does_not_exist_was_certainly_not_reached(client: Transport) -> None:
    with pytest.raises(WireError) as caught:
        await whole(client, "http://no-such-host.invalid/")
    assert not caught.value.dispatched


def dies_after_the_first() -> Player:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        if exchange.number == 0:
            await exchange.send(ok(b"first"))
            await exchange.request()  # read, and dropped without a byte
        else:
            await exchange.send(ok(b"second"))

    return play


async def test_a_kept_connection_that_dies_is_replaced_if_sending_again_is_allowed(client: Transport) -> None:
    async with Origin(dies_after_the_first()) as origin:
        await whole(client, origin.url + "/")
        assert await whole(client, origin.url + "/", resend=True) == (200, b"second")
        assert len(origin.requests) == 3


async def test_a_request_is_never_sent_twice_if_that_is_not_allowed(client: Transport) -> None:
    async with Origin(dies_after_the_first()) as origin:
        await whole(client, origin.url + "/")
        with pytest.raises(WireFailed) as caught:
            await whole(client, origin.url + "/", resend=False)
        assert caught.value.dispatched
        assert len(origin.requests) == 2


async def test_a_fresh_connection_that_dies_is_not_tried_again(client: Transport) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()

    async with Origin(play) as origin:
        with pytest.raises(WireFailed):
            await whole(client, origin.url + "/", resend=True)
        assert len(origin.requests) == 1


async def test_closing_an_answer_early_hangs_up_on_the_server(client: Transport) -> None:
    closed = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + chunk(b"abc"))
        await exchange.hung_up()
        closed.set()

    async with Origin(play) as origin:
        answer = await post(client, origin.url + "/")
        assert await anext(aiter(answer)) == b"abc"
        await answer.aclose()
        await asyncio.wait_for(closed.wait(), 5)


@pytest.mark.parametrize("player", [silent_before_the_head, silent_in_the_body])
async def test_cancelling_hangs_up_on_the_server(client: Transport, player: Player) -> None:
    reached, closed = asyncio.Event(), asyncio.Event()

    async def play(exchange: Exchange) -> None:
        reached.set()
        await player(exchange)
        closed.set()

    async with Origin(play) as origin:
        task = asyncio.create_task(whole(client, origin.url + "/"))
        await asyncio.wait_for(reached.wait(), 5)
        while not origin.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 5)


async def test_a_large_body_goes_both_ways(client: Transport) -> None:
    body = bytes(range(256)) * 20_000

    async def play(exchange: Exchange) -> None:
        request = await exchange.request()
        await exchange.send(ok(request.body))

    async with Origin(play) as origin:
        assert await whole(client, origin.url + "/", body) == (200, body)


async def test_headers_that_could_end_their_line_are_refused_before_anything_is_sent(client: Transport) -> None:
    async with Origin(always(ok(b""))) as origin:
        for headers in ([(b"x-a", b"1\r\nx-b: 2")], [(b"x-a\r\nx-b", b"1")]):
            with pytest.raises(ValueError):
                await whole(client, origin.url + "/", headers=headers)
        assert origin.connections == 0


async def test_a_closed_client_sends_nothing(client: Transport) -> None:
    async with Origin(always(ok(b""))) as origin:
        await whole(client, origin.url + "/")
        await client.aclose()
        with pytest.raises(WireFailed) as caught:
            await whole(client, origin.url + "/")
        assert not caught.value.dispatched


async def test_ipv6_is_spoken(client: Transport) -> None:
    async with Origin(always(ok(b"six")), host="::1") as origin:
        assert await whole(client, origin.url + "/") == (200, b"six")
