"""The request headers that the door reads, in one pass over the raw list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_PARAM_PREFIX: Final = b"mcp-param-"
_READ: Final = frozenset(
    {
        b"accept",
        b"content-type",
        b"origin",
        b"mcp-protocol-version",
        b"mcp-method",
        b"mcp-name",
        b"mcp-session-id",
    }
)


class Head:
    """Values without white space around them; `repeated` names the headers that were sent more than once."""

    __slots__ = ("params", "repeated", "values")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self.values: dict[bytes, bytes] = {}
        self.params: dict[bytes, bytes] = {}  # Mcp-Param-*, by lower-case name
        self.repeated: set[bytes] = set()
        for name, value in raw:
            if name in _READ:
                kept = self.values
            elif name.startswith(_PARAM_PREFIX):
                kept = self.params
            else:
                continue
            if name in kept:
                self.repeated.add(name)
                if name == b"accept":  # a list header: lines add up (RFC 9110, section 5.3)
                    kept[name] += b"," + value
                    continue
            kept[name] = value.strip(b" \t")

    @property
    def version(self) -> str | None:
        """MCP-Protocol-Version as text."""
        value = self.values.get(b"mcp-protocol-version")
        return None if value is None else value.decode("latin-1")

    @property
    def is_json(self) -> bool:
        """Whether the body is said to be JSON."""
        return self.values.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"

    @property
    def takes_events(self) -> bool:
        """Whether the client says that it takes server-sent events."""
        return not self._ranges().isdisjoint((b"text/event-stream", b"text/*", b"*/*"))

    def accepts(self) -> str | None:
        """How to answer: "json" where the client takes it (or did not say), else "sse", else None."""
        if not self.values.get(b"accept"):
            return "json"
        ranges = self._ranges()
        if not ranges.isdisjoint((b"application/json", b"application/*", b"*/*")):
            return "json"
        if not ranges.isdisjoint((b"text/event-stream", b"text/*")):
            return "sse"
        return None

    def _ranges(self) -> set[bytes]:
        accept = self.values.get(b"accept", b"")
        return {part.partition(b";")[0].strip() for part in accept.lower().split(b",")}
