"""Characters in an agent's arguments that a reviewer can't see or could take for others: where they are, and what.

The same characters that a sentence escapes (sentences.py), and Punycode labels of domain names. Line ends and tabs are
shown as such and are not among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gateway import lookalikes
from gateway.actions import ArgumentKind
from gateway.catalog.sentences import escaped, is_exact

MAX_NOTES = 8
MAX_CHECKED = 2_000  # characters of a case that a list looks at; ASCII is free
_MAX_VALUES = 2_000  # of a case, nested ones included
_ORDINARY = re.compile(r"[\x20-\x7e\n\r\t]*+")
_WRITTEN_AS_SUCH = frozenset('\n\r\t"\\')


class Unusual(NamedTuple):
    """The arguments that have such characters. `complete`: False where there was more than a list looks at."""

    arguments: tuple[str, ...]
    complete: bool


def notes(text: str, *, exact: bool = False) -> tuple[str, ...]:
    """What is unusual in a text, each once: `а U+0430 CYRILLIC SMALL LETTER A`, `xn--pple-43d reads аpple`."""
    told: dict[str, None] = {}
    if not _is_ordinary(text):
        for character, instead in escaped(text, ascii_only=exact):
            if instead is not None and character not in _WRITTEN_AS_SUCH and len(told) <= MAX_NOTES:
                told[lookalikes.code_points(character)] = None
    for label, reads in lookalikes.punycode(text):
        told[f"{label} reads {reads} ({lookalikes.code_points(_not_ascii(reads))})" if reads else f"{label}"] = None
    shown = tuple(told)
    return shown if len(shown) <= MAX_NOTES else (*shown[:MAX_NOTES], f"and {len(shown) - MAX_NOTES} more")


def in_arguments(arguments: Mapping[str, Any], kinds: Mapping[str, ArgumentKind]) -> Unusual:
    """The arguments that a list of cases marks, within the bounds above."""
    found: list[str] = []
    left, values = MAX_CHECKED, _MAX_VALUES
    for name, value in arguments.items():
        exact = is_exact(kinds.get(name), value)
        for text in _texts(name, value):
            values -= 1
            if values < 0 or left <= 0:
                return Unusual(tuple(found), complete=False)
            if _is_ordinary(text) and "xn--" not in text.lower():
                continue
            part, left = text[:left], left - len(text)
            if notes(part, exact=exact and text is not name):
                found.append(name)
                break
    return Unusual(tuple(found), complete=left >= 0)


def _texts(name: str, value: Any) -> Iterator[str]:
    yield name
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)


def _is_ordinary(text: str) -> bool:
    return _ORDINARY.fullmatch(text) is not None


def _not_ascii(text: str) -> str:
    return "".join(character for character in text if not character.isascii())
