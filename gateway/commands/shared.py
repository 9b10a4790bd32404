"""Options that every command has, and how commands speak: tables for people, JSON for machines, one-line errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import known_secrets

OK, PROBLEM, USAGE = 0, 1, 2
"""Exit codes."""

Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]
DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="GATEWAY_DATA_DIR", help="The gateway's data directory.", show_default="var"),
]
ConfigFile = Annotated[
    Path, typer.Option("--config", envvar="GATEWAY_CONFIG", help="The configuration file.", show_default="gateway.yaml")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")]

DATA_DIR = Path("var")
CONFIG = Path("gateway.yaml")


class CommandError(Exception):
    """What a command could not do, in one sentence with the mend. Ends the process with `exit_code`."""

    def __init__(self, message: str, exit_code: int = PROBLEM) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def group(help_text: str) -> typer.Typer:
    """A group of commands, such as `gateway agents`."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def show(value: Any, as_json: bool, text: str | Iterable[str]) -> None:
    """Print `value` as JSON, or `text` for people."""
    if as_json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
        return
    for line in [text] if isinstance(text, str) else text:
        print(safe(line))


def show_table(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool, empty: str, total: str | int | None = None
) -> None:
    """Print rows as JSON, or as a table of `columns`; `empty` is said where there are none.

    `total`: how many there are; a table that leaves some out says so below.
    """
    lines = table(rows, columns)
    if total is not None and str(total) != str(len(rows)):
        lines.append(f"{len(rows)} of {total} shown; --limit shows more.")
    show(rows, as_json, lines if rows else empty)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """Rows as aligned lines with a heading."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    heading = [column.upper().replace("_", " ") for column in columns]
    widths = [max(len(line[at]) for line in [heading, *cells]) for at in range(len(columns))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in [heading, *cells]
    ]


def complain(message: str) -> None:
    """Say what went wrong, on standard error."""
    print(f"gateway: {safe(known_secrets.redact(message))}", file=sys.stderr)


def safe(text: str) -> str:
    """Without what could move the cursor or hide text: agents choose some of what is printed."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{{{ord(c):x}}}" for c in text)


def marked(text: str) -> str:
    """`safe`, and what looks like other characters is escaped too."""
    from gateway.catalog.sentences import escaped

    if text.isascii() and text.isprintable():
        return text
    kept = frozenset('\n\t"\\')
    return "".join(c if instead is None or c in kept else instead for c, instead in escaped(text))


def seconds(text: str) -> float:
    """A duration such as 90s, 15m, 24h or 7d in seconds. Raises CommandError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = (text[:-1], text[-1]) if text and text[-1] in units else (text, "s")
    if not number.isascii() or not number.isdigit():
        raise CommandError(f"{text!r} is not a duration; write for example 90s, 15m, 24h or 7d.", USAGE)
    return float(int(number) * units[unit])


def pairs(given: Iterable[str], option: str) -> dict[str, str]:
    """`name=value` options as a dict. Raises CommandError."""
    found: dict[str, str] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise CommandError(f"{one!r} is not name=value; write for example {option} business=dana.", USAGE)
        found[name] = value
    return found


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ",".join(str(one) for one in value) or "-"
    return safe(str(value)).replace("\n", " ") or "-"
