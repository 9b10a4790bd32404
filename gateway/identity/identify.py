"""From the headers of a request to the agent that sent it. On the hot path: one pass and one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from gateway.actions import Caller, Session
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.identity.sessions import session as session_of

# Where official SDKs put their key: OpenAI, Anthropic, Gemini, Azure. ASGI header names are lower case.
_BEARER = b"authorization"
_KEY_HEADERS = frozenset({_BEARER, b"x-api-key", b"x-goog-api-key", b"api-key"})
# Longer values can't be a key of ours; they are not even hashed.
_MAX_KEY_BYTES = 256


class BoundKey:
    """A key as memory knows it: whose it is and until when. `expires_ns` None: until revoked."""

    __slots__ = ("caller", "expires_ns")

    def __init__(self, caller: Caller, expires_ns: int | None) -> None:
        self.caller = caller
        self.expires_ns = expires_ns


class Identity:
    """Answers who a request comes from. Reads a map that `Agents` keeps; does no input or output."""

    def __init__(self, clock: Clock, mint_id: Callable[[], str]) -> None:
        self._now_ns = clock.now_ns
        self._mint_id = mint_id
        self._keys: dict[bytes, BoundKey] = {}

    def bind(self, key_sha256: str, caller: Caller, expires_ns: int | None) -> None:
        """From now on the key with this hash (hex) proves `caller`, until `expires_ns` or until unbound."""
        self._keys[bytes.fromhex(key_sha256)] = BoundKey(caller, expires_ns)

    def unbind(self, key_sha256: str) -> None:
        """From now on the key with this hash is unknown."""
        self._keys.pop(bytes.fromhex(key_sha256), None)

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller that the request's credential proves.

        Raises `Refusal("unauthenticated")` if there is no key, an unknown, revoked or expired one, or two
        that differ. The agent's status is not looked at: whether a suspended agent may act is decided later,
        so that its refusal is recorded with its name.
        """
        found: bytes | None = None
        for name, value in headers:
            if name not in _KEY_HEADERS:
                continue
            if name == _BEARER:
                scheme, _, value = value.partition(b" ")
                if scheme.lower() != b"bearer":
                    continue
            value = value.strip()
            if not value:
                continue
            if found is not None and found != value:
                raise Refusal(
                    "unauthenticated",
                    "The request carries two different keys, so it is not clear who asks; send one.",
                )
            found = value
        if found is None:
            raise Refusal(
                "unauthenticated",
                "The request has no agent key; send yours as Authorization: Bearer, x-api-key, x-goog-api-key"
                " or api-key.",
            )
        key = self._keys.get(hashlib.sha256(found).digest()) if len(found) <= _MAX_KEY_BYTES else None
        if key is None:
            raise Refusal(
                "unauthenticated",
                "The agent key is not known or was revoked; ask your operator for one"
                " (gateway agents rotate-key AGENT).",
            )
        if key.expires_ns is not None and self._now_ns() >= key.expires_ns:
            raise Refusal(
                "unauthenticated",
                "The agent key has expired; ask your operator for a new one (gateway agents rotate-key AGENT).",
            )
        return key.caller

    def session(
        self, headers: Mapping[bytes, bytes], path_session: str | None, trace_id: str | None, caller: Caller
    ) -> Session:
        """The session of a request of `caller`; see `gateway.identity.sessions.session`."""
        return session_of(headers, path_session, trace_id, caller.credential_id, self._mint_id)
