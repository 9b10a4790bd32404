"""Names of hosts as they stand in `Host` headers, origins and URLs."""

from __future__ import annotations

import re

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")
_LOOPBACK_V4 = re.compile(r"127(\.\d{1,3}){3}")


def host_name(host: str) -> str | None:
    """The name in a Host header, in lower case and without the port; None where it is none."""
    found = _HOST.fullmatch(host.lower())
    return None if found is None else found.group(1)


def is_loopback(name: str) -> bool:
    """Whether a name from `host_name` is this machine itself, under which each of its ports is reached."""
    return name in LOOPBACK or _LOOPBACK_V4.fullmatch(name) is not None


def as_sent(name: str) -> str:
    """A name as browsers send it: in lower case and punycode, an IPv6 address in brackets."""
    if ":" in name:
        return name.lower() if name.startswith("[") else f"[{name.lower()}]"
    return name.lower() if name.isascii() else name.encode("idna").decode("ascii")
