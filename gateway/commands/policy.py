"""policy: is it well formed, do its tests pass, why does it decide so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.commands.shared import (
    CONFIG,
    DATA_DIR,
    PROBLEM,
    USAGE,
    CommandError,
    ConfigFile,
    DataDir,
    Json,
    group,
    show,
)

app = group("The policies: checked, tested, explained. The running gateway looks at its own policy folder.")


@app.command()
def check(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Check the policies that are in the gateway's folder now; they need not be active yet. Exit 1 if one has an error.

    \b
    Example:
      gateway policy check
    """
    from gateway.commands.client import Api

    found = Api(data_dir).post("/policy/check")
    failed = [one for one in found if one["severity"] == "error"]
    lines = [_problem(one) for one in found]
    if not failed:
        lines.append("ok: the policies in the folder can become active (`gateway reload`).")
    show(found, as_json, lines)
    if failed:
        raise typer.Exit(PROBLEM)


def _problem(one: dict[str, Any]) -> str:
    where = f"{one['file']}:{one['line']}" if one["line"] else one["file"]
    kind = "warning: " if one["severity"] == "warning" else ""
    return f"{where}: {kind}{one['message']} {one['mend']}".rstrip()


@app.command("test")
def run_tests(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Run the tests that lie beside the policies (rules test_... in *_test.rego).

    \b
    Example:
      gateway policy test
    """
    from gateway.commands.client import Api

    found = Api(data_dir).post("/policy/test")
    failed = [one for one in found if not one["passed"]]
    lines = [
        f"FAILED {one['file']}:{one['failed_line'] or one['line']}: {one['name']}: {one['message']}" for one in failed
    ]
    show(found, as_json, [*lines, f"{len(found) - len(failed)} passed, {len(failed)} failed."])
    if failed:
        raise typer.Exit(PROBLEM)


@app.command()
def bundle(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", metavar="FILE")],
    config: ConfigFile = CONFIG,
    as_json: Json = False,
) -> None:
    """Write the checked policies as one file that OPA servers load. Needs no running gateway.

    \b
    Example:
      gateway policy bundle -o gateway-policies.tar.gz
    """
    from gateway import settings
    from gateway.policy import load

    found, problems = settings.load(config)
    engine = None
    if found is not None:
        engine, problems = load(found.policy.path)
    if engine is None:
        raise CommandError("\n".join(["Nothing was written. Fix this first:", *(str(one) for one in problems)]))
    packed = engine.bundle()
    try:
        output.write_bytes(packed)
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}. Name another file.") from error
    told = {"id": engine.revision, "revision": engine.revision, "file": str(output), "bytes": len(packed)}
    show(told, as_json, f"{output}: revision {engine.revision}, {len(packed)} bytes.")


@app.command()
def explain(
    action: Annotated[str | None, typer.Argument(help="A recorded action's id.", metavar="[ACTION]")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Or an action to imagine: the agent,")] = None,
    target: Annotated[str | None, typer.Option("--target", help="server__tool or a model alias,")] = None,
    arguments: Annotated[str, typer.Option("--arguments", help="the arguments as JSON,")] = "{}",
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="model.invoke, tool.call, tool.list, tool.propose (default: by the target),"),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="and the person it acts for.")] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Why the active policy decides as it does: every rule that fired. Nothing is done.

    \b
    Example:
      gateway policy explain --agent demo-agent --target ledger__transfer --arguments '{"to": "acme-gmbh"}'
      gateway policy explain 019a7c1e-...
    """
    from gateway.commands.client import Api

    if action is not None:
        found = Api(data_dir).post(f"/policy/explain/{quote(action, safe='')}")
    elif agent is not None and target is not None:
        wanted = {"agent": agent, "user": user, "kind": kind, "target": target, "arguments": _object(arguments)}
        found = Api(data_dir).post("/policy/explain", wanted)
    else:
        raise CommandError("Name a recorded action, or give --agent and --target.", USAGE)
    show({"id": found["revision"], **found}, as_json, _lines(found))


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['effect']}: {', '.join(found['rules']) or 'no rule'}", *(f"  {one}" for one in found["reasons"])]
    lines += [f"  note: {one}" for one in found["notes"]]
    decided = found.get("decided") or {"engine": "embedded"}
    if decided["engine"] == "opa":
        where = "by the same revision" if decided["revision"] == found["revision"] else "by another revision"
        lines.append(f"The OPA server says {decided['effect']}, {where}; the engine in the gateway explains:")
    if found.get("recorded"):
        lines.append(f"recorded then: {found['recorded'].get('effect')}")
    for effect, entries in found["matched"].items():
        lines += [f"fired, {effect}: {entry.get('rule')}" for entry in entries]
    if found["fault"]:
        lines.append(f"FAULT {found['fault']}")
    return [*lines, *found["problems"]]


def _object(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--arguments is not JSON ({error}); quote it for the shell.", USAGE) from error
    if not isinstance(found, dict):
        raise CommandError('--arguments is not a JSON object; write for example \'{"to": "acme-gmbh"}\'.', USAGE)
    return found
