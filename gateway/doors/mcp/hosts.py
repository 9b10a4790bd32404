"""Whether a browser may be behind a request: the guard against DNS rebinding.

A page of a stranger can make a browser send requests to a server on the user's own machine. The `Origin` header
names that page; the `Host` header names the host that the browser believes it talks to.
Source: MCP 2026-07-28, streamable HTTP, "Security & Endpoint".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.errors import Refusal

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_BOUND_TO_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^/:@\[\]\s?#]+)(?::(\d{1,5}))?")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^/:@\[\]\s]+)(?::\d{1,5})?")
_DEFAULT_PORT = {"http": "80", "https": "443"}


class Hosts:
    """What the gateway is called, and which pages may call it.

    `bound_host` is the address it listens on. With `public_url`, that origin is known, and `Host` is left to the
    proxy in front. `allowed_origins` are further pages, such as `https://console.example.com`.
    """

    def __init__(self, *, bound_host: str, public_url: str | None = None, allowed_origins: Iterable[str] = ()) -> None:
        self._local = bound_host.lower() in _BOUND_TO_LOOPBACK
        self._check_host = self._local and public_url is None
        known = [*allowed_origins, public_url] if public_url is not None else [*allowed_origins]
        self._origins = {origin for url in known if (origin := _origin(url)) is not None}

    def check(self, host: bytes | None, origin: bytes | None) -> None:
        """Raises `forbidden` for a page that may not call, or a host that the gateway is not."""
        if origin is not None:
            page = _ORIGIN.fullmatch(origin.decode("latin-1").lower())
            known = page is not None and (
                _triple(page) in self._origins or (self._local and page.group(2) in _LOOPBACK)
            )
            if not known:
                raise Refusal(
                    "forbidden",
                    "The Origin header names a page that may not call this gateway; set GATEWAY_PUBLIC_URL"
                    " if the page is the gateway's own.",
                )
        if self._check_host:
            name = None if host is None else _HOST.fullmatch(host.decode("latin-1").lower())
            if name is None or name.group(1) not in _LOOPBACK:
                raise Refusal(
                    "forbidden",
                    "The Host header is not one of this gateway, which listens on this machine only; call it as"
                    " localhost, or set GATEWAY_PUBLIC_URL.",
                )


def _origin(url: str) -> tuple[str, str, str] | None:
    page = _ORIGIN.match(url.lower())
    return None if page is None else _triple(page)


def _triple(page: re.Match[str]) -> tuple[str, str, str]:
    scheme = page.group(1)
    return scheme, page.group(2), page.group(3) or _DEFAULT_PORT[scheme]
