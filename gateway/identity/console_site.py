"""Where people open the console, and the cookie that counts only there.

Browsers send a cookie to every port of its host. On 127.0.0.1 that is every server of this machine, so the console
gets a host of its own below `localhost`, which Chromium and Firefox resolve to this machine without asking DNS (RFC
6761, section 6.3). Nothing but a name that others do not know keeps their ports from getting the cookie: never put it
into a redirect, an error, a log line or a metric.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b32encode
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlencode, urlsplit

import msgspec

from gateway.host_names import as_sent, host_name, is_loopback

_PORTS = {"http": 80, "https": 443}
_LABEL_CHARS = 26  # of base32: 130 bits

_PAGE = re.compile(r"/console(/[A-Za-z0-9._~:@-]+)*(\?[A-Za-z0-9._~:@/?&=%+,-]*)?")
_NO_PAGES = ("/console/login", "/console/logout", "/console/static/")
_MAX_PAGE_CHARS = 2000

COOKIE = "gateway_console"
_SECURE_COOKIE = f"__Host-{COOKIE}"  # a browser takes it only over TLS, for this host, and from no other host


class ConsoleSite(msgspec.Struct, frozen=True):
    """The console's address. `host` is a name without a port, in lower case; `base` the URL that links begin with."""

    base: str
    host: str

    @classmethod
    def of(cls, *, public_url: str | None, console_host: str | None, port: int, secret: bytes) -> Self:
        """The site of a process: its public URL; where that is of this machine only, or absent, a host of its own.

        `port` is the one that the gateway listens on. `console_host` is a host to use instead of the one that `secret`
        gives.
        """
        base = (public_url or f"http://localhost:{port}").rstrip("/")
        url = urlsplit(base)
        public = as_sent(url.hostname or "")
        # No certificate names a random host.
        if not is_loopback(public) or (url.scheme == "https" and console_host is None):
            return cls(base, public)
        host = as_sent(console_host or own_host(secret))
        at = host if url.port is None else f"{host}:{url.port}"
        return cls(f"{url.scheme}://{at}{url.path}", host)

    def sign_in_url(self, link: str, next_page: str | None = None) -> str:
        """Where a sign-in link leads; `next_page` is the path of the page that is shown after it."""
        return f"{self.base}/console/login?{urlencode({'token': link, **({'next': next_page} if next_page else {})})}"

    @property
    def origin(self) -> str:
        """Scheme, host and port, as browsers write them."""
        url = urlsplit(self.base)
        at = self.host if url.port in (None, _PORTS.get(url.scheme)) else f"{self.host}:{url.port}"
        return f"{url.scheme}://{at}"

    @property
    def is_https(self) -> bool:
        """Whether browsers reach it over TLS, which a proxy in front ends."""
        return self.base.startswith("https:")

    @property
    def cookie(self) -> str:
        """The cookie's name."""
        return _SECURE_COOKIE if self.is_https else COOKIE

    @property
    def shares_host(self) -> str | None:
        """What is lost where every port of this machine gets the cookie; None where the host is the console's own."""
        if not is_loopback(self.host):
            return None
        return (
            f"The console is opened as {self.host}, so browsers send its cookie to every port of this machine: any"
            " other server here whose page a signed-in person opens can act as that person."
        )

    def is_at(self, headers: Mapping[str, str]) -> bool:
        """Whether a request was sent to the console's host; through whichever port, since tunnels change it."""
        return host_name(headers.get("host", "")) == self.host

    def is_origin(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Whether `origin` is a page of the console; behind a tunnel, of the port that the request came through."""
        origin = origin.lower()
        if origin == self.origin:
            return True
        _, sign, at = origin.partition("://")
        return bool(sign) and at == headers.get("host", "").lower() and host_name(at) == self.host


def page_of_console(path: str) -> str | None:
    """`path` if it is one of the console's pages to show after a sign-in, else None: it comes from a link."""
    is_page = len(path) <= _MAX_PAGE_CHARS and _PAGE.fullmatch(path) is not None and ".." not in path.partition("?")[0]
    return path if is_page and not path.startswith(_NO_PAGES) else None


def own_host(secret: bytes) -> str:
    """A host that nobody knows who does not have `secret`, and that is the same after a restart."""
    digest = hmac.digest(secret, b"gateway/console-host", hashlib.sha256)
    return f"{b32encode(digest).decode().lower()[:_LABEL_CHARS]}.localhost"
