"""Arguments of calls as values that can be compared: numbers as decimals, objects without an order."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from decimal import Decimal
from typing import Any

# What JavaScript makes of a number, and what Python's float does.
Rounded = bool


def of_text(text: str, *, rounded: Rounded = False) -> Hashable:
    """The value of JSON text; text that is no JSON stands for itself. Blank text is no arguments."""
    try:
        value = json.loads(text or "{}", parse_float=Decimal, parse_int=Decimal)
    except ValueError:
        return ("not JSON", text)
    return canonical(value, rounded=rounded)


def canonical(value: Any, *, rounded: Rounded = False) -> Hashable:
    """A value that equals another only where both say the same. `rounded`: numbers as a double holds them."""
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, int | float | Decimal):
        return ("number", _rounded(value) if rounded else _decimal(value))
    if isinstance(value, str):
        return ("string", joined(value))
    if isinstance(value, dict):
        return ("object", frozenset((joined(key), canonical(one, rounded=rounded)) for key, one in value.items()))
    return ("array", tuple(canonical(one, rounded=rounded) for one in value))


def joined(text: str) -> str:
    """Text whose halves of surrogate pairs are the characters that they make."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _decimal(number: float | Decimal) -> Decimal | str:
    if isinstance(number, float) and not math.isfinite(number):
        return repr(number)
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def _rounded(number: float | Decimal) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def unambiguous(text: str) -> bool:
    """Whether every reader makes the same of arguments: one object, no key twice, no number that a double changes.

    Integers keep their digits where they are parsed as integers, so they are unambiguous whatever their size.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    def exact(number: str) -> float:
        value = float(number)
        if not math.isfinite(value) or Decimal(repr(value)) != Decimal(number):
            raise ValueError
        return value

    def refuse(name: str) -> float:
        raise ValueError(name)

    try:
        value = json.loads(text or "{}", object_pairs_hook=unique, parse_float=exact, parse_constant=refuse)
    except ValueError:
        return False
    return isinstance(value, dict)
