"""One tool that an agent was seen to declare: what is kept of its words, and its row. Bounded in every field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.store.interface import Connection

MAX_NAME = 128
MAX_DESCRIPTION = 1000
MAX_SCHEMA_BYTES = 16 * 1024
MAX_ARGUMENTS = 50  # whose names are kept of a larger schema


class SeenTool(msgspec.Struct):
    """One tool of one agent, in the agent's words."""

    agent: str
    name: str
    tenant: str
    description: str
    schema: str  # JSON
    first_ns: int
    last_ns: int
    count: int  # model calls that declared it

    @property
    def id(self) -> str:
        """Agent and name, in letters that may stand anywhere."""
        return f"{self.agent}:{quote(self.name, safe='')}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of its arguments; of one that was too large, only their names."""
        found = msgspec.json.decode(self.schema)
        return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------- what is kept of an agent's words


def cut(text: str) -> str:
    """At most MAX_DESCRIPTION characters, and only what every store takes: PostgreSQL's texts can't hold a NUL."""
    return text[:MAX_DESCRIPTION].encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")


def names_or_whole(parameters: dict[str, Any] | None) -> str:
    """The schema as JSON; of one that is too large, the names of its arguments and which are required."""
    try:
        whole = msgspec.json.encode(parameters or {})
        if len(whole) <= MAX_SCHEMA_BYTES:
            return whole.decode()
        names = msgspec.json.encode(_names_of(parameters or {}))
        return names.decode() if len(names) <= MAX_SCHEMA_BYTES else "{}"
    except (ValueError, RecursionError):
        return "{}"


def _names_of(parameters: dict[str, Any]) -> dict[str, Any]:
    properties, required = parameters.get("properties"), parameters.get("required")
    names = list(_short(properties.keys() if isinstance(properties, dict) else ()))[:MAX_ARGUMENTS]
    needed = [name for name in _short(required if isinstance(required, list) else ()) if name in names]
    return {
        "$comment": "It was larger; these are its names.",
        "type": "object",
        "properties": {name: {} for name in names},
        "required": list(dict.fromkeys(needed)),
    }


def _short(names: Iterable[Any]) -> Iterator[str]:
    return (name for name in names if isinstance(name, str) and 0 < len(name.encode("utf-8", "replace")) <= MAX_NAME)


# ---------------------------------------------------------------- rows

_COLUMNS = "agent, tool, tenant, description, parameters, first_ns, last_ns, count"


def rows(connection: Connection) -> list[SeenTool]:
    """All that was saved."""
    return [SeenTool(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM seen_tool")]  # noqa: S608 - ours


def row_of(seen: SeenTool) -> tuple[str | int, ...]:
    """A tool as it is saved."""
    return (
        seen.agent,
        seen.name,
        seen.tenant,
        seen.description,
        seen.schema,
        seen.first_ns,
        seen.last_ns,
        seen.count,
    )


def upsert(values: list[tuple[str | int, ...]]) -> Callable[[Connection], None]:
    """A function that saves tools; when one was first seen stays as it was."""

    def write(connection: Connection) -> None:
        connection.executemany(
            f"INSERT INTO seen_tool ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
            " ON CONFLICT (agent, tool) DO UPDATE SET description = excluded.description,"
            " parameters = excluded.parameters, last_ns = excluded.last_ns, count = excluded.count",
            values,
        )

    return write


def delete_before(last_ns: int) -> Callable[[Connection], None]:
    """A function that deletes what nobody has declared since."""

    def write(connection: Connection) -> None:
        connection.execute("DELETE FROM seen_tool WHERE last_ns < ?", (last_ns,))

    return write
