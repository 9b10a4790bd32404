"""Which `Host` headers are the gateway's own: the guard against DNS rebinding, on every path but the probes.

A stranger's page can point a name of its own at this machine, and is then same-origin with whatever answers there. The
`Host` header names what the browser believes it talks to. An IP address can't be pointed elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.errors import Refusal
from gateway.host_names import as_sent, host_name, is_loopback

PROBES = frozenset({"/livez", "/readyz"})
"""Asked by whatever looks after the process, under any name or none."""

_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\]")
_REMEMBERED = 64
EVERYWHERE = frozenset({"0.0.0.0", "::", "[::]"})  # noqa: S104 - compared with, not bound to


class Hosts:
    """The names under which the gateway answers.

    Always this machine itself, the address it is bound to, and `names` (the public URL's, the console's). Bound to more
    than this machine, also every IP address. `allowed` are further names; `*.example.com` is every name below
    example.com.
    """

    def __init__(self, *, bound_host: str, names: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        bound = as_sent(bound_host)
        self._is_open = not is_loopback(bound)
        self._names = {bound, *(name.lower() for name in names)} - EVERYWHERE
        listed = [name.lower() for name in allowed]
        self._names |= {name for name in listed if not name.startswith("*.")}
        self._suffixes = tuple(name[1:] for name in listed if name.startswith("*."))
        self._known: set[bytes] = set()  # headers as they came: nearly all are the same

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        """Why a request with `headers` is not for this gateway; None where it is."""
        found: bytes | None = None
        for name, value in headers:
            if name == b"host":
                if found is not None:
                    return Refusal("malformed", "The request has more than one Host header; send one.")
                found = value
        if found is not None and (found in self._known or self._is_ours(found)):
            return None
        return Refusal(
            "wrong_host",
            "The Host header is not a name of this gateway; call it by its address, or list the name in"
            " GATEWAY_ALLOWED_HOSTS, or set GATEWAY_PUBLIC_URL.",
        )

    def _is_ours(self, header: bytes) -> bool:
        name = host_name(header.decode("latin-1"))
        if name is None:
            return False
        ours = (
            is_loopback(name)
            or name in self._names
            or name.endswith(self._suffixes)
            or (self._is_open and _ADDRESS.fullmatch(name) is not None)
        )
        if ours and len(self._known) < _REMEMBERED:
            self._known.add(header)
        return ours
