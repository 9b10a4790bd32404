"""What the catalog's tests are made of: a folder of manifests, definitions, actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.actions import Action, Agent, Caller, Kind, Session, Trace
from gateway.catalog import Catalog, Manifest, read_registry
from gateway.documents import Problem
from gateway.settings import Config

BANK = """version: 1
server: bank
owner: treasury@example.com
transport: {type: streamable_http, url: "http://127.0.0.1:1/mcp"}
tools:
  transfer:
    risk: high
    effect: write
    sentence: "Transfer {amount_cents:money} to {to}"
    arguments:
      to: {kind: payee}
      amount_cents: {kind: money, currency: USD, unit: cents}
  look: {risk: low, effect: read}
"""
CLIENT = """version: 1
server: coder
kind: client
owner: it@example.com
tools:
  Bash: {risk: high, effect: destructive}
  Read: {risk: low, effect: read}
"""


def manifests(folder: Path, *texts: str, **environ: str) -> tuple[Manifest, ...]:
    found, problems = registry(folder, *texts, **environ)
    assert found is not None, [str(problem) for problem in problems]
    return found


def registry(folder: Path, *texts: str, **environ: str) -> tuple[tuple[Manifest, ...] | None, list[Problem]]:
    for number, text in enumerate(texts):
        (folder / f"m{number}.yaml").write_text(text)
    return read_registry(folder, environ)


def catalog(folder: Path, *texts: str) -> Catalog:
    made = Catalog()
    made.install(made.prepare(Config(version=1), manifests(folder, *texts)))
    return made


def definition(name: str, **more: Any) -> dict[str, Any]:
    properties = {"to": {"type": "string"}, "amount_cents": {"type": "integer"}}
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}, **more}


def action(kind: Kind, target: str) -> Action:
    return Action(
        id="a",
        kind=kind,
        door="mcp",
        caller=Caller(Agent(id="reader"), None, "k", "key"),
        session=Session("s", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target=target,
        request_id="r",
        received_ns=0,
    )
