"""tools: the tool registry as the gateway sees it now."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer

from gateway.commands.shared import DATA_DIR, DataDir, Json, Limit, group, show, show_table

app = group("The tool registry: states, pins, definitions.")


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

    found = [one for one in Api(data_dir).get("/tools", limit=limit) if server is None or one["server"] == server]
    columns = ["id", "state", "kind", "risk", "effect", "owner", "reason"]
    show_table(found, columns, as_json, "No tool is registered; put a manifest into the tool registry.")


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
