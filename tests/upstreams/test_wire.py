"""What `Wire` promises beyond the contract of both transports: its pool, back-pressure, TLS, and no leaks."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.upstreams.wire import Wire, WireFailed, WireTimeout
from gateway.upstreams.wire_connection import Connection
from gateway.upstreams.wire_response import HIGH_WATER_BYTES, WireResponse
from tests.upstreams.origin import CHUNKED, END, Exchange, Origin, always, chunk, ok

LIMITS: dict[str, Any] = {
    "connect_timeout_s": 5.0,
    "first_byte_timeout_s": 5.0,
    "idle_timeout_s": 5.0,
    "resend": False,
}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    client = Wire(max_connections=2)
    yield client
    await client.aclose()
    assert client.connections() == 0


async def post(wire: Wire, url: str, **more: Any) -> WireResponse:
    return await wire.request("POST", url, [], b"{}", **{**LIMITS, **more})


async def whole(wire: Wire, url: str, **more: Any) -> bytes:
    async with await post(wire, url, **more) as response:
        return await response.read(1 << 24)


# ------------------------------------------------------------ the pool


async def test_requests_beyond_the_cap_wait_their_turn(wire: Wire) -> None:
    async with Origin(always(ok(b"x"))) as origin:
        answers = await asyncio.gather(*(whole(wire, origin.url) for _ in range(40)))
        assert answers == [b"x"] * 40
        assert origin.connections == 2


async def test_waiting_for_a_connection_is_bounded_by_the_connect_timeout(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED)
        await exchange.hung_up()

    async with Origin(play) as origin:
        held = [await post(wire, origin.url) for _ in range(2)]
        with pytest.raises(WireTimeout) as caught:
            await post(wire, origin.url, connect_timeout_s=0.05)
        assert (caught.value.phase, caught.value.dispatched) == ("connect", False)
        for response in held:
            await response.aclose()


async def test_cancelling_a_request_frees_its_slot_for_one_that_waits(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        request = await exchange.request()
        if b"/slow" in request.head:
            await exchange.hung_up()
        else:
            await exchange.send(ok(b"x"))

    async with Origin(play) as origin:
        slow = [asyncio.create_task(whole(wire, origin.url + "/slow")) for _ in range(2)]
        while len(origin.requests) < 2:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(whole(wire, origin.url + "/fast"))
        await asyncio.sleep(0)
        slow[0].cancel()
        assert await waiting == b"x"
        slow[1].cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_cancelling_one_that_waits_takes_nothing_from_the_others(wire: Wire) -> None:
    go = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        while True:
            await exchange.request()
            await go.wait()
            await exchange.send(ok(b"x"))

    async with Origin(play) as origin:
        tasks = [asyncio.create_task(whole(wire, origin.url)) for _ in range(8)]
        while len(origin.requests) < 2:
            await asyncio.sleep(0)
        for task in tasks[2:5]:
            task.cancel()
        go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in done] == [bytes] * 2 + [asyncio.CancelledError] * 3 + [bytes] * 3
        assert await whole(wire, origin.url) == b"x"


async def test_one_cancelled_in_the_moment_it_is_served_passes_the_connection_on(wire: Wire) -> None:
    async with Origin(always(ok(b"x"))) as origin:
        for _ in range(50):
            tasks = [asyncio.create_task(whole(wire, origin.url)) for _ in range(6)]
            for _ in range(7):
                await asyncio.sleep(0)
            tasks[3].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert wire.connections() <= 2
        assert await whole(wire, origin.url) == b"x"


async def test_a_failed_connection_gives_its_slot_back(wire: Wire) -> None:
    async with Origin(always(b"")) as origin:
        url = origin.url
    for _ in range(5):
        with pytest.raises(WireFailed):
            await whole(wire, url)
    assert wire.connections() == 0


async def test_idle_connections_expire() -> None:
    wire = Wire(idle_expiry_s=0.02)
    async with Origin(always(ok(b"x"))) as origin:
        await whole(wire, origin.url)
        assert wire.connections() == 1
        while origin.open_connections:
            await asyncio.sleep(0.001)
        assert wire.connections() == 0
        await whole(wire, origin.url)
        assert origin.connections == 2
    await wire.aclose()


async def test_the_servers_keep_alive_hint_shortens_the_rest(wire: Wire) -> None:
    async with Origin(always(ok(b"x", b"keep-alive: timeout=1, max=100"))) as origin:
        await whole(wire, origin.url)
        await whole(wire, origin.url)
        assert origin.connections == 2


async def test_a_server_that_talks_unasked_is_not_talked_to_again(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(ok(b"x") + ok(b"forged"))
        await exchange.request()
        await exchange.send(ok(b"y"))

    async with Origin(play) as origin:
        assert await whole(wire, origin.url) == b"x"
        assert await whole(wire, origin.url) == b"x"
        assert origin.connections == 2


async def test_connection_close_is_honoured(wire: Wire) -> None:
    async with Origin(always(ok(b"x", b"connection: close"))) as origin:
        await whole(wire, origin.url)
        await whole(wire, origin.url)
        assert origin.connections == 2


async def test_an_answer_that_overtakes_its_request_leaves_no_usable_connection(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.send(ok(b"no, thanks", status=b"413 Too Large"))
        await exchange.hung_up()

    async with Origin(play) as origin:
        response = await wire.request("POST", origin.url, [], bytes(8 << 20), **LIMITS)
        assert (response.status, await response.read(100)) == (413, b"no, thanks")
        assert wire.connections() == 0


async def test_nothing_is_sent_again_once_a_byte_of_the_answer_came(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(ok(b"first"))
        await exchange.request()
        await exchange.send(b"HTTP/1.1 2")

    async with Origin(play) as origin:
        await whole(wire, origin.url)
        with pytest.raises(WireFailed):
            await whole(wire, origin.url, resend=True)
        assert len(origin.requests) == 2


async def test_a_connection_the_server_closed_while_idle_is_not_used(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(ok(b"%d" % exchange.number))

    async with Origin(play) as origin:
        assert await whole(wire, origin.url) == b"0"
        while origin.open_connections:
            await asyncio.sleep(0)
        assert await whole(wire, origin.url, resend=False) == b"1"


# ------------------------------------------------------------ back-pressure


async def test_a_slow_consumer_stops_the_server_and_misses_nothing(wire: Wire) -> None:
    piece, count = b"x" * 8192, 3000
    sent = 0

    async def play(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.request()
        await exchange.send(CHUNKED)
        for sent in range(1, count + 1):  # noqa: B007 - read by the test
            await exchange.send(chunk(piece))
        await exchange.send(END)

    async with Origin(play) as origin:
        response = await post(wire, origin.url, idle_timeout_s=0.05)
        before = -1
        while sent != before or sent == 0:  # until the server is stuck; longer than the idle time-out
            before = sent
            await asyncio.sleep(0.06)
        assert sent < count
        assert response._held < HIGH_WATER_BYTES + 512 * 1024
        total = sum([len(one) async for one in response])
        assert total == len(piece) * count
        await response.aclose()
        assert origin.connections == 1


async def test_a_connection_is_readable_again_after_an_answer_that_had_to_wait(wire: Wire) -> None:
    async with Origin(always(ok(b"x" * (1 << 20)))) as origin:
        for _ in range(3):
            response = await post(wire, origin.url)
            await asyncio.sleep(0.01)
            assert len(await response.read(1 << 21)) == 1 << 20
        assert origin.connections == 1


async def test_many_tiny_chunks_count_as_what_they_cost(wire: Wire) -> None:
    async with Origin(always(CHUNKED + chunk(b"xy") * 100_000 + END)) as origin:
        response = await post(wire, origin.url)
        await asyncio.sleep(0.02)
        assert len(response._pieces) < 40_000
        assert sum([len(one) async for one in response]) == 200_000
        await response.aclose()


# ------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for `localhost`, and a client's that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "both.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)


async def test_tls_is_spoken_and_kept_alive(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    wire = Wire(tls=tls[1])
    async with Origin(always(ok(b"secret")), tls=tls[0]) as origin:
        url = origin.url.replace("127.0.0.1", "localhost")
        for _ in range(3):
            assert await whole(wire, url) == b"secret"
        assert origin.connections == 1
        await wire.aclose()


async def test_a_handshake_that_never_ends_is_a_connect_timeout(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.hung_up()

    async with Origin(play) as origin:
        with pytest.raises(WireTimeout) as caught:
            await whole(wire, origin.url.replace("http:", "https:"), connect_timeout_s=0.1)
        assert (caught.value.phase, caught.value.dispatched) == ("connect", False)
        assert wire.connections() == 0
        while origin.open_connections:
            await asyncio.sleep(0)


async def test_a_server_that_speaks_no_tls_is_a_failure(wire: Wire) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.send(ok(b"plain"))
        await exchange.hung_up()

    async with Origin(play) as origin:
        with pytest.raises(WireFailed, match="TLS handshake") as caught:
            await whole(wire, origin.url.replace("http:", "https:"))
        assert not caught.value.dispatched


async def test_a_certificate_that_is_not_trusted_is_refused(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    wire = Wire()
    async with Origin(always(ok(b"secret")), tls=tls[0]) as origin:
        with pytest.raises(WireFailed, match="not trusted") as caught:
            await whole(wire, origin.url.replace("127.0.0.1", "localhost"))
        assert not caught.value.dispatched
        assert wire.connections() == 0
        await wire.aclose()
    assert not origin.requests


async def test_a_certificate_for_another_name_is_refused(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    wire = Wire(tls=tls[1])
    async with Origin(always(ok(b"secret")), tls=tls[0]) as origin:
        with pytest.raises(WireFailed, match="not trusted"):
            await whole(wire, origin.url)
        await wire.aclose()
    assert not origin.requests


# ------------------------------------------------------------ closing


async def test_closing_ends_what_is_under_way_and_what_waits() -> None:
    wire = Wire(max_connections=1)

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + chunk(b"a"))
        await exchange.hung_up()

    async with Origin(play) as origin:
        response = await post(wire, origin.url)
        waiting = asyncio.create_task(post(wire, origin.url))
        await asyncio.sleep(0)
        await wire.aclose()
        assert await anext(response) == b"a"
        with pytest.raises(WireFailed, match="closed"):
            await anext(response)
        with pytest.raises(WireFailed, match="closed"):
            await waiting
        while origin.open_connections:
            await asyncio.sleep(0)


async def test_no_connection_or_timer_outlives_its_client() -> None:
    async with Origin(always(ok(b"x"))) as origin:
        wire = Wire()
        await asyncio.gather(*(whole(wire, origin.url) for _ in range(10)))
        await wire.aclose()
        del wire
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Connection)]
    assert len(asyncio.all_tasks()) == 1
