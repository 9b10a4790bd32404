"""login, status, reload: the gateway as its operator sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.shared import DATA_DIR, PROBLEM, USAGE, CommandError, DataDir, Json, show, table


def login(
    person: Annotated[str | None, typer.Option("--person", help="Sign in somebody else.", show_default="you")] = None,
    next_page: Annotated[
        str | None, typer.Option("--next", help="The console's page to show first, such as /console/approvals.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Sign in with your own private key (OpenSSH, ed25519); needs --person."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="With --key: the gateway's address.", show_default="the one that runs here"),
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Print a bearer token for scripts instead of a link.")] = False,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=365, help="How long the token is good.", show_default="30")
    ] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Print a link that signs a person in to the console, once; or a token for scripts.

    A token has all that its person may do, in `Authorization: Bearer`, until it expires or `gateway sessions revoke`
    ends it. It is shown this once.

    \b
    Example:
      gateway login
      gateway login --person olga --next /console/approvals
      gateway login --token --days 7
      gateway login --person olga --key ~/.ssh/id_ed25519 --url https://gateway.example.com
    """
    from gateway.commands.client import Api

    if key is not None:
        if person is None or token or days is not None:
            raise CommandError(
                "--key signs in the person of --person in a browser; leave --token and --days out.", USAGE
            )
        from gateway.commands.own_key import link

        made = link(key, person, url, next_page, data_dir)
        text = [made["url"], f"Signs in {person} once, until {made['expires'][:19]}Z. Whoever opens it is them."]
        show({"id": person, **made}, as_json, text)
        return
    if url is not None:
        raise CommandError("--url is of --key: without it the gateway of the data directory is asked.", USAGE)
    whom = {} if person is None else {"person": person}
    if token:
        if next_page is not None:
            raise CommandError("A token shows no page: give --token or --next, not both.", USAGE)
        made = Api(data_dir).post("/tokens", whom if days is None else {**whom, "days": days})
        ends = f"A token of {made['person']}, good until {made['expires'][:19]}Z. End it: gateway sessions revoke"
        show(made, as_json, [made["token"], f"{ends} {made['id']}"])
        return
    if days is not None:
        raise CommandError("--days is of a token: add --token.", USAGE)
    made = Api(data_dir).post("/sign-in", whom if next_page is None else {**whom, "next": next_page})
    text = [made["url"], f"Signs in {made['person']} once, until {made['expires'][:19]}Z. Whoever opens it is them."]
    show({"id": made["person"], **made}, as_json, text)


def status(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """What runs, what is degraded since when, refusals by agent. Exit 1 if something is degraded.

    \b
    Example:
      gateway status
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = api.get("/status")
    show({"id": "gateway", "url": api.url, **found}, as_json, _lines(api.url, found))
    if found["state"] != "ok":
        raise typer.Exit(PROBLEM)


def reload(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Read configuration, registry and policies again. If they have errors, the previous version stays active.

    \b
    Example:
      gateway reload
    """
    from gateway.commands.client import Api

    done = Api(data_dir).post("/reload")
    show({"id": done["revision"], **done}, as_json, [*done["warnings"], f"In force: policy {done['revision'][:19]}."])


def _lines(url: str, found: dict[str, Any]) -> list[str]:
    audit, agents, cases = found["audit"], found["agents"], found["approvals"]
    suspended = f", suspended: {', '.join(agents['suspended'])}" if agents["suspended"] else ""
    lines = [
        f"{found['state']}: gateway {found['version']} at {url}",
        f"policy   {found['policy']['revision'][:19]}",
        f"agents   {agents['registered']} registered{suspended}",
        f"models   {found['models']}",
        f"cases    {cases['pending']} pending"
        + (f", {cases['unknown']} UNKNOWN: gateway approvals list --status unknown" if cases["unknown"] else ""),
        f"audit    {audit['size']} records, {audit['unsigned']} not yet signed, {audit['open_intents']} in flight"
        + (f", TAKES NO MORE: {audit['latched']}" if audit["latched"] else ""),
    ]
    if found["console"]["warning"]:
        lines.append(f"console  {found['console']['warning']}")
    for server in found["tool_servers"]:
        tools = ", ".join(f"{count} {state}" for state, count in sorted(server["tools"].items()))
        reason = f" ({server['reason']})" if server["reason"] else ""
        lines.append(f"tools    {server['id']}: {server['state']}{reason}, {tools or 'no tools'}")
    ended = [one for one in found["replicas"] if one["state"] == "ended"]
    for one in found["replicas"]:
        if one["state"] == "ended":
            continue
        behind = f", LAGS in {', '.join(one['lags'])}" if one["lags"] else ""
        told = ", ".join(f"{name} {(one[name] or '-')[:12]}" for name in ("policy", "configuration", "registry"))
        lines.append(f"replica  {one['name']} at {one['url'] or '-'}: {one['state']}{behind}; {told}")
    if ended:
        lines.append(f"replica  {len(ended)} ended within the last hour (--json names them)")
    lines += [
        f"DEGRADED {one['id']} since {one['since'][:19]}Z: {one['reason']}"
        for one in found["components"]
        if one["state"] != "ok"
    ]
    lines += [f"WARNING  {one}" for one in found["configuration"]["warnings"]]
    if found["refusals"]:
        lines += ["", "Refused in the last 24 hours:", *table(found["refusals"], ["agent", "code", "count"])]
    return lines
