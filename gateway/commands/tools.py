"""tools: the tool registry as the gateway sees it now, and what agents declare beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.commands.shared import DATA_DIR, USAGE, CommandError, DataDir, Json, Limit, group, show, show_table

if TYPE_CHECKING:
    from gateway.catalog.drafting import Draft
    from gateway.commands.client import Api

app = group("The tool registry: states, pins, definitions; tools that agents declare.")

_ANSWERS_FOR_TOOLS = ("technology", "operations", "business", "data", "risk")  # owners of an agent, best first
_ALL = 1000
_SHOWN = 60  # characters of a description


@app.command("list")
def list_tools(
    server: Annotated[str | None, typer.Option("--server", help="Only this server's.")] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
    limit: Limit = 500,
) -> None:
    """All tools with their state, also those that agents cannot use.

    \b
    Example:
      gateway tools list --server ledger
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    every = api.get("/tools", limit=limit if server is None else _ALL)
    found = [one for one in every if server is None or one["server"] == server]
    total = api.total if server is None else len(found)
    columns = ["id", "state", "kind", "risk", "effect", "owner", "reason"]
    empty = "No tool is registered; put a manifest into the tool registry."
    show_table(found[:limit], columns, as_json, empty, total)


@app.command()
def inspect(
    tool: Annotated[str, typer.Argument(help="server__tool", metavar="TOOL")],
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """One tool: its manifest entry and the definition that its server sent.

    \b
    Example:
      gateway tools inspect ledger__transfer
    """
    from gateway.commands.client import Api

    found = Api(data_dir).get(f"/tools/{quote(tool, safe='')}")
    show(found, as_json, json.dumps(found, indent=2, ensure_ascii=False))


@app.command("seen")
def list_seen(
    agent: Annotated[str | None, typer.Option("--agent", help="Only of this agent.")] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
    limit: Limit = 500,
) -> None:
    """Tools that agents declared to models and that no manifest describes. All words are the agents' own.

    \b
    Example:
      gateway tools seen --agent demo-agent
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = api.get("/tools/seen", agent=agent, limit=limit)
    rows = found if as_json else [{**one, "description": _beginning(one["description"])} for one in found]
    columns = ["agent", "tool", "count", "last_seen", "description"]
    empty = "No agent was seen to declare a tool that no manifest describes."
    show_table(rows, columns, as_json, empty, api.total)


@app.command()
def adopt(
    agent: Annotated[str, typer.Option("--agent", help="Whose tools.")],
    server: Annotated[
        str | None, typer.Option("--server", help="The manifest's name for them; absent: one like the agent's.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Who answers for them; absent: an owner of the agent.")
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option("--tool", help="Only this tool; may be given more than once.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A new file for the draft; absent: it is printed.")] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Draft a manifest of an agent's own tools from what it was seen to declare. Review every guess in it.

    \b
    Example:
      gateway tools adopt --agent demo-agent
      gateway tools adopt --agent demo-agent --server desk --owner dana --out tools_registry/desk.yaml
    """
    from gateway.catalog.drafting import draft, server_fits, server_of
    from gateway.commands.client import Api

    if out is not None and out.exists():
        raise CommandError(f"{out} is there already; name another file, or move that one away.", USAGE)
    if server is not None and not server_fits(server):
        raise CommandError(
            f"{server!r} can't be a manifest's name: use lower-case letters, digits, - and single _, at most 32.", USAGE
        )
    api = Api(data_dir)
    owners = api.get(f"/agents/{quote(agent, safe='')}")["owners"]
    seen = _chosen(agent, api.get("/tools/seen", agent=agent, limit=_ALL), tool or ())
    owner = owner or next((owners[role] for role in _ANSWERS_FOR_TOOLS if owners.get(role)), None)
    if owner is None:
        raise CommandError(f"The agent {agent} has no owner; say with --owner who answers for its tools.", USAGE)
    taken = _servers(api)
    if server in taken:
        raise CommandError(
            f"There is a manifest {server!r} already; name another with --server, or add the tools to that one.", USAGE
        )
    try:
        made = draft(agent, server or server_of(agent, taken), owner, seen)
    except ValueError as error:
        raise CommandError(f"No manifest can be drafted: {error} Choose some of the tools with --tool.") from error
    if not made.tools:
        raise CommandError("A manifest can name none of these tools; the agent must give them plain names.")
    if out is not None:
        _write(out, made.text)
    told = made.text if out is None else f"Wrote {out}: {len(made.tools)} tools. Review each guess, then gateway check."
    show(_as_json(made, out), as_json, told.rstrip())


def _chosen(agent: str, seen: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    if not seen:
        raise CommandError(
            f"The agent {agent} was not seen to declare a tool that no manifest describes: let it make a model call"
            " through the gateway, with its tools, and ask again."
        )
    missing = set(names) - {one["tool"] for one in seen}
    if missing:
        raise CommandError(
            f"The agent {agent} was not seen to declare {', '.join(sorted(missing))}; `gateway tools seen` shows what"
            " it did."
        )
    return [one for one in seen if not names or one["tool"] in names]


def _servers(api: Api) -> set[str]:
    return {one["id"] for one in api.get("/status")["tool_servers"]}


def _write(out: Path, text: str) -> None:
    try:
        with out.open("x") as file:
            file.write(text)
    except OSError as error:
        raise CommandError(f"{out} can't be written ({error.strerror}); name another file.", USAGE) from error


def _as_json(made: Draft, out: Path | None) -> dict[str, Any]:
    return {
        "server": made.server,
        "file": None if out is None else str(out),
        "tools": [
            {
                "id": f"{made.server}__{one.tool}",
                "tool": one.tool,
                "risk": one.risk,
                "effect": one.effect,
                "review": one.why,
                "sentence": one.sentence,
                "arguments": {argument.name: argument.kind for argument in one.arguments},
                "left_out": list(one.left_out),
            }
            for one in made.tools
        ],
        "left_out": list(made.left_out),
        "manifest": made.text,
    }


def _beginning(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
