"""sessions: what people are signed in with, browsers and tokens."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from gateway.commands.shared import DATA_DIR, DataDir, Json, Limit, group, show, show_table

app = group("Console sessions and API tokens of people.")


@app.command("list")
def list_sessions(data_dir: DataDir = DATA_DIR, as_json: Json = False, limit: Limit = 100) -> None:
    """Everything that is signed in now: browsers (console) and tokens of scripts.

    \b
    Example:
      gateway sessions list
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = api.get("/sessions", limit=limit)
    columns = ["id", "kind", "person", "makers", "created", "expires"]
    show_table(found, columns, as_json, "Nobody is signed in.", api.total)


@app.command()
def revoke(
    session: Annotated[str, typer.Argument(help="Its id, as `gateway sessions list` shows it.", metavar="SESSION")],
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """End a console session or an API token at once.

    \b
    Example:
      gateway sessions revoke 3f9a0c21d4e5b678
    """
    from gateway.commands.client import Api

    ended = Api(data_dir).delete(f"/sessions/{quote(session, safe='')}")
    show(ended, as_json, f"Revoked {ended['id']}, a {ended['kind']} session of {ended['person']}.")
