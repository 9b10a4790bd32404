"""agents: the register of agents and their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.commands.shared import DATA_DIR, DataDir, Json, Limit, group, pairs, seconds, show, show_table

app = group("The register of agents and their keys.")

AgentId = Annotated[str, typer.Argument(help="The agent's id.", metavar="AGENT")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


@app.command()
def create(
    agent: AgentId,
    team: Annotated[str, typer.Option("--team", help="Who answers for it.")] = "",
    use_case: Annotated[str, typer.Option("--use-case", help="What for.")] = "",
    env: Annotated[str, typer.Option("--env", help="dev, stage or prod.")] = "dev",
    version: Annotated[str, typer.Option("--version", help="Of the agent.")] = "1",
    tier: Annotated[str, typer.Option("--tier", help="How closely it is governed.")] = "standard",
    owner: Annotated[list[str] | None, typer.Option("--owner", help="ROLE=PERSON; may be given again.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="NAME=VALUE; may be given again.")] = None,
    next_review: Annotated[str | None, typer.Option("--next-review", help="A date, e.g. 2027-05-01.")] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Register an agent and print its first key, which is shown this once.

    \b
    Example:
      gateway agents create invoice-bot --team finance --owner business=dana
    """
    from gateway.commands.client import Api

    wanted = {
        "id": agent,
        "team": team,
        "use_case": use_case,
        "env": env,
        "version": version,
        "tier": tier,
        "owners": pairs(owner or [], "--owner"),
        "labels": pairs(label or [], "--label"),
        "next_review": next_review,
    }
    made = Api(data_dir).post("/agents", wanted)
    show(made, as_json, [f"{made['id']} is registered. Its key, shown this once:", made["key"]["secret"]])


@app.command("list")
def list_agents(data_dir: DataDir = DATA_DIR, as_json: Json = False, limit: Limit = 100) -> None:
    """All registered agents.

    \b
    Example:
      gateway agents list
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = api.get("/agents", limit=limit)
    columns = ["id", "status", "env", "team", "use_case", "version", "source", "next_review"]
    show_table(found, columns, as_json, "No agent is registered; add one with `gateway agents create`.", api.total)


@app.command("show")
def show_agent(agent: AgentId, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """One agent with its keys (never their secrets).

    \b
    Example:
      gateway agents show invoice-bot
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found: dict[str, Any] = api.get(f"/agents/{quote(agent, safe='')}")
    found["keys"] = api.get(f"/agents/{quote(agent, safe='')}/keys")
    lines = [f"{name:12} {_text(value)}" for name, value in found.items() if name != "keys"]
    lines += [
        f"key          {key['id']} {key['state']}"
        + (f", for {key['user']}" if key["user"] else "")
        + (f", until {key['expires'][:19]}Z" if key["expires"] else "")
        for key in found["keys"]
    ]
    show(found, as_json, lines)


@app.command()
def suspend(agent: AgentId, reason: Reason = "", data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Stop an agent now: no new action, its open streams end. Survives reloads and restarts.

    \b
    Example:
      gateway agents suspend invoice-bot --reason "odd payments"
    """
    _set(agent, "suspend", reason, data_dir, as_json)


@app.command()
def resume(agent: AgentId, reason: Reason = "", data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Let a suspended agent act again.

    \b
    Example:
      gateway agents resume invoice-bot
    """
    _set(agent, "resume", reason, data_dir, as_json)


@app.command("rotate-key")
def rotate_key(
    agent: AgentId,
    user: Annotated[str | None, typer.Option("--user", help="The person the agent acts for with this key.")] = None,
    overlap: Annotated[str, typer.Option("--overlap", help="How long the old key still works.")] = "24h",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Make a new key and print it once; the old ones of the same user still work for the overlap.

    \b
    Example:
      gateway agents rotate-key invoice-bot --overlap 1h
    """
    from gateway.commands.client import Api

    body = {"user": user, "overlap_s": seconds(overlap)}
    made = Api(data_dir).post(f"/agents/{quote(agent, safe='')}/rotate-key", body)
    ends = [f"The key {old['id']} ends {_end(old)}." for old in made["replaces"]]
    show(made, as_json, [f"The new key of {agent}, shown this once:", made["secret"], *ends])


def _set(agent: str, change: str, reason: str, data_dir: Path, as_json: bool) -> None:
    from gateway.commands.client import Api

    found = Api(data_dir).post(f"/agents/{quote(agent, safe='')}/{change}", {"reason": reason})
    show(found, as_json, f"{found['id']} is {found['status']}.")


def _end(key: dict[str, Any]) -> str:
    return "now" if key["revoked"] else f"at {key['expires'][:19]}Z"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items()) or "-"
    return "-" if value in (None, "") else str(value)
