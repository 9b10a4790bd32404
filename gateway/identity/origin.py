"""Who had a hand in how a person signed in and in what they may do: others give links, tokens, roles and groups.

Whoever makes a sign-in link for somebody else can open it themselves. Nobody can tell, so the maker stands in the
session, in what is made in that session, and in the votes that are cast through it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

import msgspec

Given = tuple[tuple[str, tuple[str, ...], int], ...]
"""What others gave a person: "person", "role:NAME" or "group:NAME"; who did; when (nanoseconds)."""

_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_given = msgspec.json.Decoder(Given).decode
_DIGEST_CHARS = 16


class Origin(NamedTuple):
    """How somebody who makes or changes something signed in.

    `makers`: who else could be them. `parent`: their session or token as it is kept, which what they make ends with.
    """

    makers: tuple[str, ...] = ()
    parent: str | None = None


ALONE = Origin()
"""Nobody else had a hand in it: the local operator's token, a key of their own, the gateway itself."""


def makers_of(person: str, by: str | None, origin: Origin) -> tuple[str, ...]:
    """Who else can act through what `by` gives to `person`."""
    return tuple(sorted({*origin.makers, *([] if by is None else [by])} - {person}))


def given_anew(before: Given, had: Iterable[str], has: Iterable[str], makers: tuple[str, ...], now_ns: int) -> Given:
    """What a person was given after a change: `had` and `has` are roles and groups ("role:...", "group:...")."""
    had, has = set(had), set(has)
    kept = [one for one in before if one[0] == "person" or one[0] in has]
    return (*kept, *((one, makers, now_ns) for one in sorted(has - had) if makers))


def encode_names(names: tuple[str, ...]) -> str | None:
    """For a row; NULL where there are none."""
    return msgspec.json.encode(names).decode() if names else None


def decode_names(text: str | None) -> tuple[str, ...]:
    """From a row."""
    return () if text is None else _decode_names(text)


def encode_given(given: Given) -> str | None:
    """For a row; NULL where there is nothing."""
    return msgspec.json.encode(given).decode() if given else None


def decode_given(text: str | None) -> Given:
    """From a row."""
    return () if text is None else _decode_given(text)


def digest_of_given(text: str | None) -> str:
    """What stands for it in records, '' for nothing; a row is held against it."""
    return "" if text is None else sha256(text.encode()).hexdigest()[:_DIGEST_CHARS]
