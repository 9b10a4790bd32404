"""Keyed digests of what an action is: tenant, agent, user, target and arguments, never the session.

Keyed because a bare hash of a small value ("transfer 100 cents to ada") can be guessed from a record.
"""

from __future__ import annotations

import hmac
import re
from typing import Any, NoReturn

import msgspec

from gateway.errors import Refusal
from gateway.protocols.canonical_json import canonical_json

_PREFIX = "hmac-sha256:"
_LONG_NUMBER = re.compile(rb"[0-9]{16}")


class _OutsideError(Exception):
    """The value is outside the domain where the fast encoder equals RFC 8785."""


def _float(_text: str) -> NoReturn:
    raise _OutsideError


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(float_hook=_float).decode


def _ascii_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return all(key.isascii() and _ascii_keys(inner) for key, inner in value.items())
    return all(map(_ascii_keys, value)) if isinstance(value, list) else True


def canonical(value: dict[str, Any]) -> bytes:
    """RFC 8785 bytes of a JSON object, in which integers keep their digits.

    Takes the fast encoder's output when reading it back gives the same value with no float, no large integer
    and no key outside ASCII: there it equals RFC 8785 (a NaN, written as null, does not read back the same).
    Raises Refusal(malformed) for what has no canonical form.
    """
    try:
        packed = _encode(value)
        same = _decode(packed) == value and not _LONG_NUMBER.search(packed)
        if same and (packed.isascii() or _ascii_keys(value)):
            return packed
    except (_OutsideError, TypeError, ValueError, msgspec.MsgspecError, OverflowError):
        pass  # the strict writer below decides, and says why not
    try:
        return canonical_json(value)
    except (ValueError, TypeError) as error:
        raise Refusal(
            "malformed",
            "The arguments have no canonical JSON form, because they hold NaN, an infinity or half of a character.",
        ) from error


class Digester:
    """Makes digests under a key derived per tenant."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._tenants: dict[str, bytes] = {}

    def digest(self, tenant: str, agent: str, user: str | None, target: str, arguments: dict[str, Any]) -> str:
        """`hmac-sha256:<hex>`; equal for equal actions, whatever the order of keys. Refusal(malformed)."""
        key = self._tenants.get(tenant)
        if key is None:
            key = self._tenants[tenant] = hmac.digest(self._key, b"tenant\x00" + tenant.encode(), "sha256")
        document = {"agent": agent, "arguments": arguments, "target": target, "tenant": tenant, "user": user}
        return _PREFIX + hmac.digest(key, canonical(document), "sha256").hex()
