"""Canonical bytes of a record: RFC 8785 restricted to what every JSON library writes alike.

Sorted keys, no white space, keys in ASCII, no floats, integers with |n| < 2^53. Inside this domain sorted
msgspec output equals RFC 8785. Records are stored and hashed as written; checking never re-creates what is hashed.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import msgspec

MAX_INT = (1 << 53) - 1

# A number of 2^53 or more has at least 16 digits: a cheap sieve before the walk.
_LONG_NUMBER = re.compile(rb"[0-9]{16}")


class NotCanonicalError(ValueError):
    """The bytes are not the canonical form of a record."""


def _no_float(text: str) -> NoReturn:
    raise NotCanonicalError(f"the number {text[:40]} is not an integer")


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(float_hook=_no_float)


def encode(value: Any) -> bytes:
    """Sorted JSON. The caller keeps to the domain; `decode` is what checks it."""
    return _encoder.encode(value)


def decode(body: bytes) -> dict[str, Any]:
    """The record in `body`; raises NotCanonicalError where the bytes are not canonical."""
    try:
        value = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotCanonicalError("not JSON") from error
    if not isinstance(value, dict):
        raise NotCanonicalError("not a JSON object")
    if not body.isascii() or _LONG_NUMBER.search(body):
        _walk(value)
    if _encoder.encode(value) != body:
        raise NotCanonicalError("keys out of order, doubled, or another form than the canonical one")
    return value


def _walk(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not key.isascii():
                raise NotCanonicalError("a key is not ASCII")
            _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner)
    elif isinstance(value, int) and not -MAX_INT <= value <= MAX_INT:
        raise NotCanonicalError("an integer is 2^53 or larger")
