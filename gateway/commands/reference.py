"""Writes docs/reference/cli.md and error-codes.md from the code, so that the reference can't drift from it.

python -m gateway.commands.reference docs/reference
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from gateway.commands.program import app
from gateway.errors import CODES

_HEAD = "<!-- Written by `python -m gateway.commands.reference docs/reference`; a test compares it with the code. -->"


def cli_markdown() -> str:
    """Every command with its help."""
    lines = [
        "# Command line",
        "",
        _HEAD,
        "",
        "`gateway` is a client of the API: it finds the gateway that runs on this machine through the data directory",
        "(`--data-dir`, `GATEWAY_DATA_DIR`, else `./var`) and acts as the local operator. Only `check`, `migrate` and",
        "`audit verify` read files instead, so that they work while no gateway runs.",
        "",
        "Exit codes: 0 ok · 1 a problem was found, or the gateway refused · 2 wrong usage. Errors are one sentence on",
        "standard error. With `--json`, lists are arrays of objects that have an `id`.",
        "",
    ]
    for path, command in commands():
        lines += [f"## {path}", "", *_described(command), ""]
    return "\n".join(lines).rstrip() + "\n"


def error_codes_markdown() -> str:
    """The table of codes."""
    lines = [
        "# Error codes",
        "",
        _HEAD,
        "",
        "Every refusal has one of these codes, in the error form of the door it came through. *Again*: whether the",
        "same request may simply be sent again.",
        "",
        "| code | HTTP | again | meaning |",
        "|---|---|---|---|",
        *(f"| `{name}` | {c.http_status} | {'yes' if c.retry else 'no'} | {c.meaning} |" for name, c in CODES.items()),
    ]
    return "\n".join(lines) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in the order of the help."""
    return _walk("gateway", get_command(app))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, one in inner.items():
        yield from _walk(f"{path} {name}", one)


def _described(command: Any) -> Iterator[str]:
    prose, _, example = (command.help or "").partition("\b")
    yield " ".join(prose.split())
    yield ""
    yield "```"
    yield from (line.strip() for line in example.splitlines() if line.strip() and line.strip() != "Example:")
    yield "```"
    yield ""
    yield "| option | meaning |"
    yield "|---|---|"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield f"| `{parameter.metavar or parameter.name.upper()}` | {parameter.help or ''} |"
        elif parameter.name != "help":
            names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
            yield f"| {names} | {_meaning(parameter)} |"


def _meaning(option: Any) -> str:
    parts = [option.help or ""]
    default = option.show_default if isinstance(option.show_default, str) else option.default
    if default not in (None, False, "", [], ()) and not callable(default):
        parts.append(f"Default: `{default}`.")
    return " ".join(part for part in parts if part).replace("|", "\\|")


def main(folder: Path) -> None:
    """Write both files into `folder`."""
    (folder / "cli.md").write_text(cli_markdown())
    (folder / "error-codes.md").write_text(error_codes_markdown())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
