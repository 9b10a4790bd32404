"""What a tool call would do, in one sentence for people: the owner's words around the agent's arguments.

The arguments are hostile: whoever reads the sentence decides on it. A plain word or number stands as it is;
everything else stands in quotes, and what can't be seen or could be mistaken for something else (gateway.lookalikes)
is escaped as \\u{hex}, so that a value can neither end its place in the sentence nor look like another.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from gateway import lookalikes
from gateway.actions import ArgumentKind, ToolTarget

MAX_SHOWN = 200  # characters of one argument
MAX_DIGITS = 60  # of an amount of money

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@/:+#-]*[A-Za-z0-9/])?\Z")
_EXACT = frozenset(("payee", "object_id", "url", "path", "email"))  # each letter matters here: ASCII or escaped
# Letters and marks that take no space or show nothing, though Unicode does not call them format characters
# (https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point).
_INVISIBLE = frozenset((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)) | frozenset(
    (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
)
_HIDDEN_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Me"))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
MAX_MARKS = 2  # combining marks in a row; more are escaped


def render_sentence(target: ToolTarget, arguments: dict[str, Any]) -> str:
    """The sentence of a call; where the manifest has none, what is called. Raises nothing."""
    if target.sentence is None:
        return f"Call {target.tool} of {target.server}"
    parts = []
    for text, name, _, _ in string.Formatter().parse(target.sentence):
        parts.append(text)
        if name is not None:
            parts.append(show(arguments[name], target.arguments.get(name)) if name in arguments else "(not given)")
    return "".join(parts)


def show(value: Any, kind: ArgumentKind | None = None) -> str:
    """One argument for people; see the module for what is quoted and escaped."""
    if kind is not None and kind.kind == "money":
        return _money(value, kind)
    if isinstance(value, str):
        if len(value) <= MAX_SHOWN and _PLAIN.match(value):
            return value
        return _quoted(value, ascii_only=is_exact(kind, value))
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return _number(value)
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _quoted(text, ascii_only=is_exact(kind, value))
    except (TypeError, ValueError, RecursionError):
        return "(a value that can't be shown)"


def _money(value: Any, kind: ArgumentKind) -> str:
    if isinstance(value, float) and kind.unit == "units":
        return _fraction(value, kind)
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{show(value)} (not a whole number of {kind.unit})"
    if abs(value) >= 10**MAX_DIGITS:
        return "(a number too large to show)"
    sign = "-" if value < 0 else ""
    units, cents = divmod(abs(value), 100) if kind.unit == "cents" else (abs(value), None)
    text = f"{sign}{units}" if cents is None else f"{sign}{units}.{cents:02d}"
    return f"{text} {kind.currency}"


def _fraction(value: float, kind: ArgumentKind) -> str:
    """An amount like 12.5, as agents send it in JSON."""
    amount = Decimal(repr(value))
    if not amount.is_finite() or abs(amount) >= 10**15 or amount != amount.quantize(Decimal("0.01")):
        return f"{show(value)} {kind.currency} (not a whole number of cents)"
    return f"{amount:.2f} {kind.currency}"


def _number(value: float) -> str:
    try:
        text = json.dumps(value)
    except ValueError:  # more digits than Python writes
        return "(a number too large to show)"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + f"… (+{len(text) - MAX_SHOWN} digits)"


def escaped(text: str, *, ascii_only: bool = False) -> Iterator[tuple[str, str | None]]:
    """Each character with what is shown in its place; None where it can be seen and mistaken for nothing else."""
    suspects = frozenset() if ascii_only else lookalikes.suspects(text)
    joined = frozenset() if ascii_only else lookalikes.joined(text)
    marks = 0
    for at, character in enumerate(text):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Mc") else 0
        if character in _SHORT:
            yield character, _SHORT[character]
        elif (
            (at not in joined and _hidden(character, category))
            or marks > MAX_MARKS
            or at in suspects
            or (ascii_only and not character.isascii())
        ):
            yield character, f"\\u{{{ord(character):x}}}"
        else:
            yield character, None


def is_exact(kind: ArgumentKind | None, value: Any = None) -> bool:
    """Whether each letter matters in an argument of this kind, so that only ASCII stands as it is.

    An address of one word is an account, a wallet or a host; one of several is a place, and written in any script.
    """
    if kind is not None and kind.kind == "address":
        return isinstance(value, str) and len(value.split()) == 1
    return kind is not None and kind.kind in _EXACT


def _quoted(text: str, *, ascii_only: bool) -> str:
    shown = [instead or character for character, instead in escaped(text[:MAX_SHOWN], ascii_only=ascii_only)]
    rest = len(text) - MAX_SHOWN
    return f'"{"".join(shown)}"' + (f"… (+{rest} characters)" if rest > 0 else "")


def _hidden(character: str, category: str) -> bool:
    return category in _HIDDEN_CATEGORIES or (category == "Zs" and character != " ") or ord(character) in _INVISIBLE
