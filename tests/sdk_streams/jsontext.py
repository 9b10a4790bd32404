"""Writes JSON as strange providers do: repeated keys, escaped keys, numbers as given, white space and line breaks."""

from __future__ import annotations

import json
from random import Random
from typing import Any, NamedTuple


class Raw(str):
    """JSON text that is written as it is, such as `1e-400`."""


class Members(list[tuple[str, Any]]):
    """An object as a list of members, so that a key can be repeated."""


class Style(NamedTuple):
    """How a value is written. `breaks` puts line ends between values, `escaped_keys` writes letters of keys as \\u."""

    ascii: bool = True
    spaces: bool = True
    breaks: bool = False
    escaped_keys: bool = False


def write(value: Any, style: Style, rng: Random) -> str:
    """JSON text of a value."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict | Members):
        members = value.items() if isinstance(value, dict) else value
        return _joined("{}", [_member(key, one, style, rng) for key, one in members], style, rng)
    if isinstance(value, list | tuple):
        return _joined("[]", [write(one, style, rng) for one in value], style, rng)
    if isinstance(value, str) and not style.ascii and any("\ud800" <= letter <= "\udfff" for letter in value):
        return json.dumps(value)  # half of a surrogate pair can only be written as an escape
    return json.dumps(value, ensure_ascii=style.ascii)


def _member(key: str, value: Any, style: Style, rng: Random) -> str:
    name = json.dumps(key, ensure_ascii=style.ascii)
    if style.escaped_keys and key and rng.random() < 0.4:
        at = rng.randrange(len(key))
        name = json.dumps(key[:at])[:-1] + f"\\u{ord(key[at]):04x}" + json.dumps(key[at + 1 :])[1:]
    return name + (": " if style.spaces else ":") + write(value, style, rng)


def _joined(brackets: str, parts: list[str], style: Style, rng: Random) -> str:
    if style.breaks and rng.random() < 0.4:
        return brackets[0] + "\n" + ",\n".join(parts) + "\n" + brackets[1]
    return brackets[0] + (", " if style.spaces else ",").join(parts) + brackets[1]
