"""people: persons and their roles."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from gateway.commands.shared import DATA_DIR, DataDir, Json, Limit, group, show, show_table

app = group("Persons and their roles.")

PersonId = Annotated[str, typer.Argument(help="The person's id, as owners are named.", metavar="PERSON")]


@app.command()
def add(
    person: PersonId,
    name: Annotated[str, typer.Option("--name", help="What people call them.")] = "",
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="reviewer, auditor, operator, policy_author or owner; may be given again."),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Add a person with roles. Then send them a link: gateway login --person PERSON.

    \b
    Example:
      gateway people add olga --name "Olga Reyes" --role auditor
    """
    from gateway.commands.client import Api

    made = Api(data_dir).post("/people", {"id": person, "name": name, "roles": role or []})
    roles = ", ".join(made["roles"]) or "no role"
    show(made, as_json, f"{made['id']} is added ({roles}). Sign them in: gateway login --person {made['id']}")


@app.command("list")
def list_people(data_dir: DataDir = DATA_DIR, as_json: Json = False, limit: Limit = 100) -> None:
    """Everybody who may sign in.

    \b
    Example:
      gateway people list
    """
    from gateway.commands.client import Api

    found = Api(data_dir).get("/people", limit=limit)
    show_table(found, ["id", "name", "roles", "created"], as_json, "Nobody may sign in.")


@app.command()
def remove(person: PersonId, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Take a person's access at once; what they did stays on record.

    \b
    Example:
      gateway people remove olga
    """
    from gateway.commands.client import Api

    gone = Api(data_dir).delete(f"/people/{quote(person, safe='')}")
    show(gone, as_json, f"{gone['id']} is removed.")
