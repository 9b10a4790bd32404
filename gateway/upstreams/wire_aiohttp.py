"""The other transport: aiohttp behind the interface of `Wire`, for networks that only a proxy leads out of.

Imported only where a provider needs it. It costs some ten times the CPU of `Wire` per request and keeps the same
promises, with three exceptions that are aiohttp's: it repeats a GET or DELETE whose reused connection died, it does
not tell whether part of an answer's head had come, and it notices a hang-up of an idle connection a moment later.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import types
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gateway.upstreams.budget import Holding
from gateway.upstreams.wire_head import (
    Headers,
    WireError,
    WireFailed,
    WireFull,
    WireTimeout,
    WireTooLarge,
    aim,
    head,
    unreachable,
)

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)
_OWN_HEADERS = frozenset(("User-Agent", "Accept", "Accept-Encoding", "Content-Type"))  # not added unasked
_HEAD_CAP_BYTES = 64 * 1024
_LARGE_BYTES = 512 * 1024


def _data(method: str, body: bytes) -> bytes | io.BytesIO | None:
    """aiohttp wants to send a large body piece by piece."""
    if not body and method in ("GET", "DELETE", "OPTIONS"):
        return None
    return body if len(body) < _LARGE_BYTES else io.BytesIO(body)


class _Reused(types.SimpleNamespace):
    """Whether the connection of this request had been used before; aiohttp's tracing tells."""

    reused: bool = False


async def _note_reuse(_session: object, context: types.SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True


class AiohttpResponse:
    """As `WireResponse`."""

    def __init__(self, response: aiohttp.ClientResponse, idle_timeout_s: float) -> None:
        self.status = response.status
        self.headers: Headers = [(name.lower(), value) for name, value in response.raw_headers]
        self._response = response
        self._idle_timeout_s = idle_timeout_s

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def read(self, cap: int, holding: Holding | None = None) -> bytes:
        body = bytearray()
        async for piece in self:
            if holding is not None and not holding.add(len(piece)):
                await self.aclose()
                raise WireFull("the gateway has no room for its answer", dispatched=True, answered=True)
            body += piece
            if len(body) > cap:
                await self.aclose()
                raise WireTooLarge(f"the answer is larger than {cap} bytes", dispatched=True, answered=True)
        return bytes(body)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                piece = await self._response.content.readany()
        except TimeoutError:
            self._response.close()
            silence = f"the server fell silent for {self._idle_timeout_s:g} s in the middle of its answer"
            raise WireTimeout("idle", silence, dispatched=True, answered=True) from None
        except (aiohttp.ClientError, OSError) as fault:
            self._response.close()
            broken = "the server closed the connection in the middle of its answer"
            raise WireFailed(broken, dispatched=True, answered=True) from fault
        except asyncio.CancelledError:
            self._response.close()
            raise
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._response.close()  # a finished answer has given its connection back already


class WireAiohttp:
    """As `Wire`. `proxy`: the URL of an HTTP proxy, user and password included, or None for a direct way."""

    def __init__(
        self,
        *,
        proxy: str | None = None,
        max_connections: int = 512,
        idle_expiry_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._proxy = proxy
        self._cap = max_connections
        self._idle_expiry_s = idle_expiry_s
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
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
    ) -> AiohttpResponse:
        """As `Wire.request`."""
        head(aim(method, url).start, headers, len(body), framed=True)  # the same refusals as Wire's
        if self._closed:
            raise WireFailed("the client is closed", dispatched=False)
        context = _Reused()
        async with self._faults(context, connect_timeout_s, first_byte_timeout_s):
            again = resend
            while True:
                try:
                    response = await self._send(method, url, headers, body, connect_timeout_s, context)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    if not again or not context.reused:
                        raise
                    again = False
                else:
                    return AiohttpResponse(response, idle_timeout_s)

    async def aclose(self) -> None:
        """As `Wire.aclose`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # let the loop close the sockets

    async def _send(
        self, method: str, url: str, headers: Headers, body: bytes, connect_s: float, context: _Reused
    ) -> aiohttp.ClientResponse:
        session = self._session or self._open()
        return await session.request(
            method,
            URL(url, encoded=True),
            headers=CIMultiDict([(name.decode("ascii"), value.decode("latin-1")) for name, value in headers]),
            data=_data(method, body),
            allow_redirects=False,
            proxy=self._proxy,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s),
            trace_request_ctx=context,
        )

    def _open(self) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=self._cap,
                keepalive_timeout=self._idle_expiry_s,
                ssl=self._tls if self._tls is not None else True,
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_OWN_HEADERS,
            trace_configs=[tracing],
            max_line_size=_HEAD_CAP_BYTES,
            max_field_size=_HEAD_CAP_BYTES,
        )
        return self._session

    @asynccontextmanager
    async def _faults(self, context: _Reused, connect_s: float, first_byte_s: float) -> AsyncGenerator[None]:
        """aiohttp's exceptions as ours."""
        try:
            async with asyncio.timeout(connect_s + first_byte_s):
                yield
        except aiohttp.ConnectionTimeoutError as fault:
            late = f"no connection to the server within {connect_s:g} s"
            raise WireTimeout("connect", late, dispatched=False) from fault
        except TimeoutError:
            late = f"the server did not begin to answer within {first_byte_s:g} s"
            raise WireTimeout("first_byte", late, dispatched=True) from None
        except aiohttp.ClientConnectorCertificateError as fault:
            raise WireFailed("the server's certificate is not trusted", dispatched=False) from fault
        except _NOT_SENT as fault:
            raise unreachable(getattr(fault, "os_error", fault)) from fault
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, OSError) as fault:
            raise WireFailed("the server closed the connection without an answer", dispatched=True) from fault
        except aiohttp.ClientError as fault:
            odd = "the server's answer is not proper HTTP/1.1"
            raise WireFailed(odd, dispatched=True, answered=True) from fault


__all__ = ["AiohttpResponse", "WireAiohttp", "WireError"]
