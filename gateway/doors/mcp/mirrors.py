"""`Mcp-Param-*`: arguments that a tool's schema asks clients to repeat in headers (`x-mcp-header`).

Source: MCP 2026-07-28, streamable HTTP, "Custom Headers from Tool Parameters".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.doors.mcp.envelope import decoded
from gateway.doors.mcp.head import Head

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES = ("string", "integer", "boolean")  # a tuple: what a schema says here may be unhashable
_WHOLE = re.compile(r"(-?[0-9]{1,32})(?:\.0+)?")


class Mirror(NamedTuple):
    """One repeated argument: where it stands, and the header that repeats it."""

    path: tuple[str, ...]
    header: bytes  # lower case
    shown_as: str
    kind: str  # string, integer or boolean


class Mirrors:
    """Which arguments of which tool are repeated. `definition` looks a tool up by `server__tool`."""

    def __init__(self, definition: Callable[[str], Mapping[str, Any] | None]) -> None:
        self._definition = definition
        # A definition is replaced, never changed, so the one it was read from tells whether an entry still holds.
        self._known: dict[str, tuple[object, tuple[Mirror, ...]]] = {}

    def of(self, tool: str) -> tuple[Mirror, ...]:
        """The mirrors of a tool; none where there is no such tool."""
        definition = self._definition(tool)
        if definition is None:
            self._known.pop(tool, None)
            return ()
        known = self._known.get(tool)
        if known is None or known[0] is not definition:
            known = self._known[tool] = (definition, mirrors_in(definition.get("inputSchema")))
        return known[1]


def mirrors_in(schema: object) -> tuple[Mirror, ...]:
    """The mirrors that a schema declares; none where one of them is not valid, as clients then drop the tool."""
    found: dict[bytes, Mirror] = {}
    pending: list[tuple[tuple[str, ...], object]] = [((), schema)]
    while pending:
        path, node = pending.pop()
        if not isinstance(node, dict):
            continue
        if "x-mcp-header" in node:
            name, kind = node["x-mcp-header"], node.get("type")
            if not path or not isinstance(name, str) or _TOKEN.fullmatch(name) is None or kind not in _TYPES:
                return ()
            header = f"mcp-param-{name.lower()}".encode()
            if header in found:
                return ()
            found[header] = Mirror(path, header, f"Mcp-Param-{name}", kind)
        inner = node.get("properties")
        if isinstance(inner, dict):  # only a pure chain of `properties` may carry mirrors
            pending.extend(((*path, key), value) for key, value in inner.items())
    return tuple(found.values())


def difference(mirrors: tuple[Mirror, ...], arguments: dict[str, Any], head: Head) -> str | None:
    """What the first header that doesn't repeat its argument is; None if all do."""
    for mirror in mirrors:
        sent = head.params.get(mirror.header)
        if mirror.header in head.repeated:
            return f"the header {mirror.shown_as} was sent more than once"
        value: Any = arguments
        for key in mirror.path:
            value = value.get(key) if isinstance(value, dict) else None
        where = ".".join(mirror.path)
        if value is None or isinstance(value, (dict, list)):
            if sent is not None:
                return f'{mirror.shown_as} was sent, but the body has no value for "{where}"'
        elif sent is None:
            return f'{mirror.shown_as} is missing, but the body has a value for "{where}"'
        elif not _same(mirror.kind, value, decoded(sent)):
            return f'{mirror.shown_as} is not the "{where}" in the body'
    return None


def _same(kind: str, value: object, text: str | None) -> bool:
    if text is None:
        return False
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        if kind == "integer":  # 42.0 and 42 are the same integer
            whole = _WHOLE.fullmatch(text)
            return whole is not None and int(whole.group(1)) == value
        return text == str(value)
    return text == (value if isinstance(value, str) else repr(value))
