"""A small HTTP/1.1 client for the hot path: one pool of long-lived connections per origin.

Why not a library: the client decides what a proxy costs, and this one takes a fifth to a tenth of the CPU of
the fastest we measured (docs/performance.md). It does what a gateway needs and no more: no redirects, no
cookies, no decompression, no proxies (`wire_aiohttp` speaks to those).

A request is sent once. It is sent again, on a fresh connection, only if the caller allows it, the connection
had been used before (so that the server may just have let it go) and not one byte of an answer came.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol, Self

from gateway.upstreams.budget import Holding
from gateway.upstreams.wire_head import (
    Aim,
    Headers,
    WireError,
    WireFailed,
    WireFull,
    WireTimeout,
    WireTooLarge,
    aim,
    head,
)
from gateway.upstreams.wire_pool import Pool
from gateway.upstreams.wire_response import WireResponse

__all__ = [
    "Answer",
    "Headers",
    "Transport",
    "Wire",
    "WireError",
    "WireFailed",
    "WireFull",
    "WireResponse",
    "WireTimeout",
    "WireTooLarge",
]

_CLOSE_S = 5.0  # how long `Wire.aclose` waits for aborted sockets to be gone
_BODILESS = frozenset(("GET", "DELETE", "OPTIONS"))


class Answer(Protocol):
    """An answer whose head has arrived, on either transport; `WireResponse` documents the methods."""

    status: int
    headers: Headers

    def header(self, name: bytes) -> bytes | None: ...

    async def read(self, cap: int, holding: Holding | None = None) -> bytes: ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """What adapters need from an HTTP client: `Wire` or `wire_aiohttp.WireAiohttp`."""

    async def request(
        self,
        method: str,
        url: str,
        headers: Headers,
        body: bytes = b"",
        *,
        connect_timeout_s: float,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
        resend: bool,
    ) -> Answer: ...

    async def aclose(self) -> None: ...


class Wire:
    """The client. One per process serves all origins; it belongs to the event loop that first used it.

    max_connections: cap per origin; further requests wait, at most their connect time-out.
    idle_expiry_s: a connection that rests longer is closed (sooner if the server's Keep-Alive says so).
    tls: the one context for all https origins; made at first use if absent.
    """

    def __init__(
        self, *, max_connections: int = 512, idle_expiry_s: float = 30.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._cap = max_connections
        self._idle_expiry_s = idle_expiry_s
        self._tls = tls
        self._pools: dict[tuple[str, str, int], Pool] = {}
        self._closed = False

    async def request(
        self,
        method: str,
        url: str,
        headers: Headers,
        body: bytes = b"",
        *,
        connect_timeout_s: float,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
        resend: bool,
    ) -> WireResponse:
        """Send a request and wait for the head of its answer; any status is an answer.

        connect_timeout_s bounds the wait for a free or new connection, TLS included; first_byte_timeout_s the
        time from sending until the head is complete; idle_timeout_s each silence after that. Raises
        WireError, or ValueError for a URL or header that must not be sent. The caller must `aclose` the response.
        """
        where = aim(method, url)
        start = head(where.start, headers, len(body), framed=bool(body) or method not in _BODILESS)
        pool = self._pools.get(where[:3]) or self._new_pool(where)
        if self._closed:
            raise WireFailed("the client is closed", dispatched=False)
        connection = pool.take_resting() or await pool.take(connect_timeout_s, fresh=False)
        while True:
            response = connection.send(start, body, first_byte_timeout_s, idle_timeout_s)
            try:
                await response.begun()
            except WireFailed as fault:
                if not resend or fault.answered or connection.used == 1:
                    raise
                connection = await pool.take(connect_timeout_s, fresh=True)
            else:
                return response

    async def aclose(self) -> None:
        """Close everything, also what is under way, and wait until the sockets are gone."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()
        async with asyncio.timeout(_CLOSE_S):
            for pool in self._pools.values():
                await pool.emptied()

    def connections(self) -> int:
        """How many connections there are over all origins: in use, resting or being made."""
        return sum(pool.slots for pool in self._pools.values())

    def _new_pool(self, where: Aim) -> Pool:
        pool = self._pools[where[:3]] = Pool(where, self._cap, self._idle_expiry_s, self._context)
        return pool

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reading the machine's certificates takes tens of milliseconds: not on the loop, and once.
            made = await asyncio.to_thread(ssl.create_default_context)
            if self._tls is None:
                self._tls = made
        return self._tls
