"""What a decision costs: input document, evaluation and answer of the shipped policies, and how data size matters.

    .venv/bin/python bench/policy_cost.py

Prints microseconds per decision (median and best of batches) on one thread, as the event loop pays them.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.actions import Action, Agent, ArgumentKind, Caller, Kind, ModelTarget, Session, Target, ToolTarget, Trace
from gateway.policy import EmbeddedEngine, document, load

POLICIES = Path(__file__).parent.parent / "policies"
AGENT = Agent(
    id="demo-agent",
    team="finance",
    use_case="pay-suppliers",
    owners=dict.fromkeys(("business", "data", "technology", "risk", "operations"), "dana"),
)
TRANSFER = ToolTarget(
    server="ledger",
    tool="transfer",
    server_kind="mcp",
    owner="treasury@example.com",
    risk="high",
    effect="write",
    data_classes=("financial",),
    arguments={"to": ArgumentKind("payee"), "amount_cents": ArgumentKind("money", "USD", "cents")},
    definition_digest="0" * 64,
)
BALANCE = ToolTarget(server="ledger", tool="get_balance", server_kind="mcp", owner="t", risk="low", effect="read")
MODEL = ModelTarget(alias="demo", provider="demo", model="demo", owner="dana")


def action(kind: Kind, target: Target, arguments: dict[str, Any]) -> Action:
    return Action(
        id="0193e0c8-0000-7000-8000-000000000000",
        kind=kind,
        door="mcp",
        caller=Caller(AGENT, None, "k", "key"),
        session=Session("s-1", "minted"),
        trace=Trace("1" * 32, "1" * 16),
        target=target.id,
        request_id="r",
        received_ns=0,
        arguments=arguments,
    )


CASES: dict[str, tuple[Kind, Target, dict[str, Any]]] = {
    "model.invoke": (Kind.MODEL_INVOKE, MODEL, {"model": "demo", "stream": False, "max_tokens": 100}),
    "read": (Kind.TOOL_CALL, BALANCE, {}),
    "small transfer": (Kind.TOOL_CALL, TRANSFER, {"to": "acme-gmbh", "amount_cents": 2500, "reference": "r"}),
    "large transfer": (Kind.TOOL_CALL, TRANSFER, {"to": "acme-gmbh", "amount_cents": 250000, "reference": "r"}),
    "denied transfer": (Kind.TOOL_CALL, TRANSFER, {"to": "mallory", "amount_cents": 2500, "reference": "r"}),
    "tool.list": (Kind.TOOL_LIST, TRANSFER, {}),
}


def made(kind: Kind, target: Target, arguments: dict[str, Any]) -> Callable[[], bytes]:
    asked = action(kind, target, arguments)
    return lambda: document(
        asked,
        target,
        environment="dev",
        undeclared="observe",
        limits={"agent:demo-agent": {"requests_per_minute": {"limit": 600, "left": 599, "reset_s": 30}}},
        facts={},
        now_ns=1_800_000_000_000_000_000,
    )


def cost_us(run: Callable[[], object], batches: int = 15, each: int = 200) -> tuple[float, float]:
    """Median and best of the batches' means."""
    means = []
    for _ in range(batches):
        begun = time.perf_counter()
        for _ in range(each):
            run()
        means.append((time.perf_counter() - begun) / each * 1e6)
    return statistics.median(means), min(means)


def loaded(path: Path) -> EmbeddedEngine:
    engine, problems = load(path)
    if engine is None:
        raise SystemExit("\n".join(str(problem) for problem in problems))
    return engine


def main() -> None:
    engine = loaded(POLICIES)
    print(f"{'case':18}{'document':>12}{'decide':>12}{'both p50':>12}{'both best':>12}   us")
    for name, case in CASES.items():
        make = made(*case)
        raw = make()
        encode, _ = cost_us(make)
        decide, _ = cost_us(lambda raw=raw: engine.decide_now(raw))  # type: ignore[misc]
        both, best = cost_us(lambda make=make: engine.decide_now(make()))  # type: ignore[misc]
        print(f"{name:18}{encode:12.1f}{decide:12.1f}{both:12.1f}{best:12.1f}   {engine.decide_now(raw).rules}")
    print("\nagents and payees in data, small transfer")
    make = made(*CASES["small transfer"])
    for size in (10, 1_000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "policies"
            shutil.copytree(POLICIES, copy)
            grants = {
                "agents": {
                    f"agent-{i}": {"models": ["demo"], "servers": {"git": {"max_risk": "low"}}} for i in range(size)
                }
            }
            (copy / "grants" / "data.json").write_text(json.dumps(grants))
            payees = {"payees": {f"payee-{i}": {"name": f"Payee {i}"} for i in range(size)}}
            (copy / "ledger" / "data.json").write_text(json.dumps(payees))
            begun = time.perf_counter()
            big = loaded(copy)
            load_ms = (time.perf_counter() - begun) * 1e3
            both, best = cost_us(lambda big=big: big.decide_now(make()))  # type: ignore[misc]
            print(f"{size:8} {both:10.1f} {best:10.1f}   load {load_ms:.0f} ms")


if __name__ == "__main__":
    main()
