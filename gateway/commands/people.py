"""people: persons and their roles."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.commands.shared import DATA_DIR, USAGE, CommandError, DataDir, Json, Limit, group, show, show_table

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
    group_: Annotated[
        list[str] | None,
        typer.Option("--group", help="A group of reviewers, as policies name it; may be given again."),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Add a person with roles. Then send them a link: gateway login --person PERSON.

    \b
    Example:
      gateway people add olga --name "Olga Reyes" --role reviewer --group treasury
    """
    from gateway.commands.client import Api

    made = Api(data_dir).post("/people", {"id": person, "name": name, "roles": role or [], "groups": group_ or []})
    roles = ", ".join(made["roles"]) or "no role"
    show(made, as_json, f"{made['id']} is added ({roles}). Sign them in: gateway login --person {made['id']}")


@app.command()
def update(
    person: PersonId,
    name: Annotated[str | None, typer.Option("--name", help="What people call them.")] = None,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="Their roles from now on; may be given again.")
    ] = None,
    group_: Annotated[
        list[str] | None, typer.Option("--group", help="Their groups from now on; may be given again.")
    ] = None,
    no_groups: Annotated[bool, typer.Option("--no-groups", help="They belong to no group any more.")] = False,
    no_roles: Annotated[bool, typer.Option("--no-roles", help="They have no role any more.")] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Change what a person may do. What is not given stays; their votes count by it from then on.

    \b
    Example:
      gateway people update olga --group treasury --group risk
    """
    from gateway.commands.client import Api

    if (no_groups and group_) or (no_roles and role):
        raise CommandError("Give --group or --no-groups, --role or --no-roles, not both.", USAGE)
    wanted: dict[str, Any] = {} if name is None else {"name": name}
    if role or no_roles:
        wanted["roles"] = role or []
    if group_ or no_groups:
        wanted["groups"] = group_ or []
    if not wanted:
        raise CommandError("Nothing to change: give --name, --role or --group.", USAGE)
    made = Api(data_dir).patch(f"/people/{quote(person, safe='')}", wanted)
    told = f"{', '.join(made['roles']) or 'no role'}; {', '.join(made['groups']) or 'no group'}"
    show(made, as_json, f"{made['id']} is changed ({told}).")


@app.command("list")
def list_people(data_dir: DataDir = DATA_DIR, as_json: Json = False, limit: Limit = 100) -> None:
    """Everybody who may sign in.

    \b
    Example:
      gateway people list
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = api.get("/people", limit=limit)
    show_table(found, ["id", "name", "roles", "groups", "created"], as_json, "Nobody may sign in.", api.total)


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
