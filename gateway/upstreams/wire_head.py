"""The request line and headers of HTTP/1.1 as bytes, proof against injection, and what can go wrong.

Pure functions: no socket is touched here. RFC 9112 (message syntax), RFC 9110 section 5 (fields).
"""

from __future__ import annotations

import functools
import re
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

Headers = list[tuple[bytes, bytes]]

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_URL = re.compile(r"[\x21-\x7e]+")
_WRITTEN_HERE = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))


class WireError(Exception):
    """Base of all that can happen to a request on its way.

    `dispatched`: whether any byte of the request may have reached the server; False means certainly none did.
    `answered`: whether at least one byte of an answer came. Messages name no host, so that they may be shown.
    """

    def __init__(self, message: str, *, dispatched: bool, answered: bool = False) -> None:
        super().__init__(message)
        self.dispatched = dispatched
        self.answered = answered


class WireFailed(WireError):  # noqa: N818 - the family is WireError; these say how
    """The connection could not be made, broke, or carried something that is not HTTP/1.1."""


class WireTooLarge(WireFailed):
    """The answer's head or body is larger than the caller takes."""


class WireFull(WireFailed):
    """The gateway's own room for answers is used up."""


class WireTimeout(WireError):  # noqa: N818
    """Nothing came in time; `phase` is connect, first_byte or idle."""

    def __init__(self, phase: str, message: str, *, dispatched: bool, answered: bool = False) -> None:
        super().__init__(message, dispatched=dispatched, answered=answered)
        self.phase = phase


def unreachable(fault: BaseException) -> WireFailed:
    """No connection could be made, and why; without the host's name."""
    if isinstance(fault, ConnectionRefusedError):
        why = "the connection was refused; the server may not be running"
    elif isinstance(fault, socket.gaierror):
        why = "its host name can't be resolved"
    else:
        why = "the server can't be reached"
    return WireFailed(why, dispatched=False)


def sentence(upstream: str, fault: WireError) -> str:
    """What happened to a request, for agents and people. `upstream` is such as `tool server crm`."""
    if not fault.dispatched:
        return f"Could not connect to the {upstream}: {fault}."
    if isinstance(fault, WireTimeout):
        return f"The {upstream} did not answer in time: {fault}."
    if not fault.answered:
        return f"The connection to the {upstream} failed: {fault}."
    return f"The {upstream} did not answer properly: {fault}."


class Aim(NamedTuple):
    """Where a request goes, and the first lines of its head."""

    scheme: str
    host: str
    port: int
    start: bytes


@functools.lru_cache(maxsize=512)
def aim(method: str, url: str) -> Aim:
    """Read an absolute http(s) URL; ValueError for what can't be put on the wire as it stands.

    Cached: a gateway calls a handful of URLs a million times.
    """
    # urlsplit drops tabs and line ends silently, so they are looked for before it sees the text.
    if not _URL.fullmatch(url):
        raise ValueError("a URL may hold printable ASCII only; percent-encode the rest")
    if not _TOKEN.fullmatch(method.encode()) or method == "HEAD" or method == "CONNECT":
        raise ValueError(f"the method {method!r} can't be sent")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("a URL needs http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not carry a user or password; use a credential reference")
    host = parts.hostname
    port = parts.port or _PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    if port != _PORTS[parts.scheme]:
        shown = f"{shown}:{port}"
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    return Aim(parts.scheme, host, port, f"{method} {target} HTTP/1.1\r\nhost: {shown}\r\n".encode())


@functools.lru_cache(maxsize=1024)
def _field(name: bytes) -> bytes:
    """`name` and its colon, once it is known to be a field name that the caller may set."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    if name.lower() in _WRITTEN_HERE:
        raise ValueError(f"the header {name!r} is written by the client itself")
    return name + b": "


def head(start: bytes, headers: Headers, size: int, *, framed: bool) -> bytes:
    """The whole head. `framed`: write content-length (`size` bytes). ValueError for a header that could
    end its line (CR, LF) or confuse a reader (NUL)."""
    parts = [start]
    for name, value in headers:
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise ValueError(f"the value of the header {name!r} holds a line end or NUL")
        parts += (_field(name), value, b"\r\n")
    parts.append(b"content-length: %d\r\n\r\n" % size if framed else b"\r\n")
    return b"".join(parts)
