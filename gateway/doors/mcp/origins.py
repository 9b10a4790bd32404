"""Which pages may call the MCP door from a browser, by the `Origin` header.

Source: MCP 2026-07-28, streamable HTTP, "Security & Endpoint". `gateway.doors.hosts` looks at `Host`, for every door.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.errors import Refusal
from gateway.host_names import LOOPBACK

_BOUND_TO_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^/:@\[\]\s?#]+)(?::(\d{1,5}))?")
_DEFAULT_PORT = {"http": "80", "https": "443"}


class Origins:
    """The pages that may call: the gateway's own, those of `allowed_origins`, and on loopback those of this machine.

    `bound_host` is the address the gateway listens on. `allowed_origins` are such as `https://console.example.com`.
    """

    def __init__(self, *, bound_host: str, public_url: str | None = None, allowed_origins: Iterable[str] = ()) -> None:
        self._local = bound_host.lower() in _BOUND_TO_LOOPBACK
        known = [*allowed_origins, public_url] if public_url is not None else [*allowed_origins]
        self._origins = {origin for url in known if (origin := _origin(url)) is not None}

    def check(self, origin: bytes | None) -> None:
        """Raises `forbidden` for a page that may not call; what is no page sends no Origin."""
        if origin is None:
            return
        page = _ORIGIN.fullmatch(origin.decode("latin-1").lower())
        if page is None or not (_triple(page) in self._origins or (self._local and page.group(2) in LOOPBACK)):
            raise Refusal(
                "forbidden",
                "The Origin header names a page that may not call this gateway; set GATEWAY_PUBLIC_URL"
                " if the page is the gateway's own.",
            )


def _origin(url: str) -> tuple[str, str, str] | None:
    page = _ORIGIN.match(url.lower())
    return None if page is None else _triple(page)


def _triple(page: re.Match[str]) -> tuple[str, str, str]:
    scheme = page.group(1)
    return scheme, page.group(2), page.group(3) or _DEFAULT_PORT[scheme]
