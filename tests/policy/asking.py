"""Actions, targets and folders that the tests of this room share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gateway.actions import (
    Action,
    Agent,
    AgentStatus,
    ArgumentKind,
    Caller,
    Claimed,
    Decision,
    Kind,
    ModelTarget,
    Session,
    Target,
    ToolTarget,
    Trace,
)
from gateway.policy import EmbeddedEngine, document, load

POLICIES = Path(__file__).parents[2] / "policies"

AGENT = Agent(id="demo-agent", team="finance", use_case="pay-suppliers", owners={"business": "dana"})

_LEDGER = {
    "get_balance": ("low", "read"),
    "list_payees": ("low", "read"),
    "transfer": ("high", "write"),
    "close_account": ("critical", "destructive"),
}


def ledger(tool: str) -> ToolTarget:
    """A tool of the quickstart's ledger, as its manifest declares it."""
    risk, effect = _LEDGER[tool]
    kinds = {"to": ArgumentKind("payee"), "amount_cents": ArgumentKind("money", "USD", "cents")}
    return ToolTarget(
        server="ledger",
        tool=tool,
        server_kind="mcp",
        owner="treasury@example.com",
        risk=risk,
        effect=effect,
        data_classes=("financial",),
        arguments=kinds if tool == "transfer" else {},
        definition_digest="0" * 64,
    )


def git(tool: str, effect: str, risk: str = "medium") -> ToolTarget:
    """A tool of mcp-server-git."""
    return ToolTarget(server="git", tool=tool, server_kind="mcp", owner="dev", risk=risk, effect=effect)


def client(tool: str, effect: str, risk: str, *, declared: bool = True) -> ToolTarget:
    """A tool that the agent executes itself."""
    return ToolTarget(
        server="client", tool=tool, server_kind="client", owner="", risk=risk, effect=effect, declared=declared
    )


def model(alias: str = "demo") -> ModelTarget:
    return ModelTarget(alias=alias, provider="demo", model=alias)


def action(kind: Kind, target: Target, arguments: dict[str, Any] | None = None, agent: Agent = AGENT) -> Action:
    return Action(
        id="0193e0c8-0000-7000-8000-000000000000",
        kind=kind,
        door="mcp",
        caller=Caller(agent, "ada", "k", "key"),
        session=Session("s-1", "minted"),
        trace=Trace("1" * 32, "1" * 16),
        target=target.id,
        request_id="r",
        received_ns=0,
        arguments=arguments or {},
        claimed=Claimed(purpose="pay the rent"),
    )


def asked(
    kind: Kind,
    target: Target,
    arguments: dict[str, Any] | None = None,
    *,
    agent: Agent = AGENT,
    environment: str = "dev",
    undeclared: str = "deny",
) -> bytes:
    """The input document of an action."""
    return document(
        action(kind, target, arguments, agent),
        target,
        environment=environment,
        undeclared=undeclared,
        limits={},
        facts={},
        now_ns=1_800_000_000_000_000_000,
    )


def shipped() -> EmbeddedEngine:
    """An engine of the policies in the repository."""
    engine, problems = load(POLICIES)
    assert engine is not None, [str(problem) for problem in problems]
    return engine


def folder(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write a folder of policies."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def suspended(agent: Agent = AGENT) -> Agent:
    return msgspec.structs.replace(agent, status=AgentStatus.SUSPENDED)


def engine_of(text: str, data: str = "{}") -> EmbeddedEngine:
    """An engine of one module, without the checks of `load`: to see what happens when it breaks while it runs."""
    return EmbeddedEngine({"broken.rego": text}, data, "r")


def answer(effect: str) -> str:
    """A rule that answers `effect` as it should be answered."""
    return f'{{"effect": "{effect}", "rules": ["r"], "reasons": ["because"], "obligations": [], "hidden": false}}'


def told(decision: Decision) -> tuple[str, tuple[str, ...]]:
    return decision.effect.value, decision.rules
