"""Live definitions: what a tool server says of a tool, taken raw, and its digest.

The digest is SHA-256 over the canonical JSON of the whole definition, fields that nobody here knows included:
a server can't change what an agent reads about a tool without changing the digest.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

import msgspec

from gateway.protocols.canonical_json import canonical_json
from gateway.protocols.schema_cost import fault_of
from gateway.protocols.tool_names import TOOL_NAME_RULE, is_tool_name

MAX_SHOWN_NAME = 64  # characters of a name that no tool may have
MAX_DEFINITIONS = 2000
MAX_DEFINITION_BYTES = 256 * 1024


class Definition(NamedTuple):
    """A definition that can be read without doubt."""

    raw: dict[str, Any]
    digest: str  # "sha256:<hex>"


class Read(NamedTuple):
    """The definitions by tool name, and what was wrong with the others.

    Those go by name, or by position where they have none; a name that no tool may have is shortened and in ASCII.
    """

    good: dict[str, Definition]
    bad: dict[str, str]


NOTHING: Final = Read({}, {})


def definition_digest(definition: dict[str, Any]) -> str:
    """'sha256:<hex>' of a raw definition. Raises ValueError for what has no canonical JSON (NaN)."""
    return "sha256:" + hashlib.sha256(canonical_json(definition)).hexdigest()


def read_definitions(definitions: list[Any], before: Read = NOTHING) -> Read:
    """Sort the definitions of one `tools/list` into good and bad; two of one name are both bad.

    It takes seconds for a long list, so threads do it. `before`: what was read last, which saves reading it again.
    """
    good: dict[str, Definition] = {}
    bad: dict[str, str] = {}
    for position, raw in enumerate(definitions):
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(name, str) or not name:
            bad[f"#{position}"] = "It has no name."
        elif not is_tool_name(name):
            bad[_shown(name)] = f"It cannot be offered under this name: {TOOL_NAME_RULE}."
        elif position >= MAX_DEFINITIONS:
            bad[name] = f"The server offers more than {MAX_DEFINITIONS} tools."
        elif name in good or name in bad:
            good.pop(name, None)
            bad[name] = "The server offers two tools of this name."
        elif not isinstance(raw.get("inputSchema"), dict):
            bad[name] = "Its inputSchema is not an object."
        elif (known := before.good.get(name)) is not None and _same(known.raw, raw):
            good[name] = known
        else:
            _digest_into(good, bad, name, raw)
    return Read(good, bad)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both are the same JSON; for `==` 1 and true would be."""
    try:
        return msgspec.json.encode(one) == msgspec.json.encode(other)
    except (ValueError, OverflowError, RecursionError):
        return False


def _digest_into(good: dict[str, Definition], bad: dict[str, str], name: str, raw: dict[str, Any]) -> None:
    try:
        body = canonical_json(raw)
    except ValueError as error:
        bad[name] = f"Its definition has no canonical form: {error}."
        return
    if len(body) > MAX_DEFINITION_BYTES:
        bad[name] = f"Its definition is larger than {MAX_DEFINITION_BYTES} bytes."
        return
    fault = fault_of(raw["inputSchema"])
    if fault is not None:
        bad[name] = f"Its inputSchema can't be used: {fault}."
        return
    good[name] = Definition(raw, "sha256:" + hashlib.sha256(body).hexdigest())


def _shown(name: str) -> str:
    escaped = name[:MAX_SHOWN_NAME].encode("ascii", "backslashreplace").decode()
    plain = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in escaped)
    return plain if len(name) <= MAX_SHOWN_NAME else f"{plain} ..."  # the space: no tool can have this name
