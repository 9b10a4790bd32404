"""The tools that a chat completion request declares: read in full, and written from what was read.

A name declares one tool. Where a request gives it twice with different definitions, readers differ in which of them
counts, so such a request is refused; the same definition twice is one tool.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gateway.actions import DeclaredTool
from gateway.doors.openai.fields import NAMED, TOOL, CheckNames, Fields, path, shown, wrong
from gateway.protocols.tool_names import TOOL_NAME_RULE, is_tool_name

_KINDS = ("function", "custom")
# What a custom tool is given is its one argument, as in `proposal_of`.
_CUSTOM_PARAMETERS = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class Tool(NamedTuple):
    """One declared tool. `kind`: function, custom, or the type of a tool that the provider itself executes."""

    kind: str
    name: str
    description: Any = None
    parameters: Any = None  # the JSON Schema, if the agent gave one

    @property
    def is_agents_own(self) -> bool:
        return self.kind in _KINDS

    @property
    def schema(self) -> dict[str, Any] | None:
        return self.parameters if isinstance(self.parameters, dict) else None


def read_tools(fields: Fields) -> list[Tool]:
    """Every tool of `tools` and `functions`, which are replaced by what was read. Raises `malformed`."""
    if "tools" not in fields and "functions" not in fields:
        return []
    reader = _Reader()
    tools = [reader.tool(tool, index) for index, tool in enumerate(_array(fields, "tools"))]
    for index, function in enumerate(_array(fields, "functions")):
        tools.append(reader.own("function", function, "functions", index))
    return tools


def declared_tool(tool: Tool) -> DeclaredTool:
    """A tool of the agent's own in the words of the agent."""
    return DeclaredTool(
        tool.name,
        tool.description if isinstance(tool.description, str) else "",
        _CUSTOM_PARAMETERS if tool.kind == "custom" else tool.schema,
    )


class _Reader:
    """Reads the tools of one request one by one, and knows which there were."""

    def __init__(self) -> None:
        self._check_names = CheckNames()
        self._seen: dict[str, tuple[str, Any]] = {}  # kind and definition, by name

    def tool(self, tool: Any, index: int) -> Tool:
        """An item of `tools`."""
        if not isinstance(tool, dict):
            raise wrong(path("tools", index), "must be an object")
        self._check_names(tool, TOOL, "tools", index)
        kind = tool.get("type")
        if kind is None:
            kind = "function"
        elif not isinstance(kind, str):
            raise wrong(path("tools", index, "type"), "must be a string")
        for other in _KINDS:  # else some reader goes by that, whatever `type` says
            if other != kind and tool.get(other) is not None:
                what = f"does not belong to a tool of type {shown(kind)}; leave it out"
                raise wrong(path("tools", index, other), what)
        if kind in _KINDS:
            return self.own(kind, tool.get(kind), "tools", index, kind)
        if not is_tool_name(kind):
            raise wrong(path("tools", index, "type"), f"is not the type of a tool: {TOOL_NAME_RULE}")
        return Tool(kind, kind)

    def own(self, kind: str, definition: Any, *place: str | int) -> Tool:
        """A tool of the agent's own; `definition` is the object that names it."""
        if not isinstance(definition, dict):
            raise wrong(path(*place), "must be an object with a name")
        self._check_names(definition, NAMED, *place)
        name = definition.get("name")
        if not isinstance(name, str) or not is_tool_name(name):
            raise wrong(path(*place, "name"), f"must be the name of a tool: {TOOL_NAME_RULE}")
        first_kind, first = self._seen.setdefault(name, (kind, definition))
        if first is not definition and (first_kind != kind or _encode(first) != _encode(definition)):
            raise wrong(path(*place, "name"), f"is {name} again, with another definition; give each tool its own name")
        return Tool(kind, name, definition.get("description"), definition.get("parameters"))


def _array(fields: Fields, name: str) -> list[Any]:
    """The array `name`, parsed; the field is replaced by what was parsed, so that both stay one."""
    raw = fields.get(name)
    if raw is None:
        return []
    try:
        value = _decode(raw)
        if value is None:
            return []
        if not isinstance(value, list):
            raise wrong(name, "must be an array")
        fields[name] = msgspec.Raw(_encode(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(name, "is not valid JSON, or holds a number that is too large") from error
    return value
