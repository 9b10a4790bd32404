"""What a decision costs by the engine in the process and by an OPA server on this machine: latency and our own CPU.

    .venv/bin/python -m bench.policy

Needs the `opa` program (`make .opa/.made`). Prints p50, p99 and CPU of this process per decision, in microseconds.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.policy_cost import BALANCE, MODEL, POLICIES, TRANSFER, action
from gateway.actions import Decision, Kind, Target
from gateway.clock import SystemClock
from gateway.config import OpaServer as OpaSettings
from gateway.policy import EmbeddedEngine, document, load
from gateway.policy.server import ServerEngine
from gateway.quickstart.opa_server import OpaServer, find

COUNT = 2000
CASES: dict[str, tuple[Kind, Target, dict[str, Any]]] = {
    "model.invoke": (Kind.MODEL_INVOKE, MODEL, {"model": "demo"}),
    "tool.call, read": (Kind.TOOL_CALL, BALANCE, {}),
    "tool.call, transfer": (Kind.TOOL_CALL, TRANSFER, {"to": "acme-gmbh", "amount_cents": 2500}),
}


async def measure(name: str, decide: Callable[[bytes], Awaitable[Decision]], at_once: int = 1) -> None:
    """One line: `COUNT` decisions, `at_once` under way at a time, every document another."""
    documents = [
        document(action(kind, target, {**arguments, "n": at}), target, environment="dev", undeclared="deny",
                 limits={}, facts={}, now_ns=at)
        for at in range(COUNT // len(CASES)) for kind, target, arguments in CASES.values()
    ]  # fmt: skip
    took: list[float] = []

    async def ask(mine: list[bytes]) -> None:
        for one in mine:
            began = time.perf_counter()
            decision = await decide(one)
            took.append((time.perf_counter() - began) * 1e6)
            assert decision.rules != ("policy_error",)

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(ask(documents[at::at_once]) for at in range(at_once)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    took.sort()
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"{name:44} {p50:8.0f} {p99:8.0f} {cpu / len(took) * 1e6:8.0f} {len(took) / wall:8.0f}")


async def main() -> None:
    program = find()
    if program is None:
        sys.exit("The opa program is not here; `make .opa/.made` gets it where there is go.")
    engine, problems = load(POLICIES)
    assert engine is not None, problems
    forgetting, _ = load(POLICIES)
    assert forgetting is not None
    forgetting._memo = None  # noqa: SLF001 - evaluated every time
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle.tar.gz"
        bundle.write_bytes(engine.bundle())
        server = OpaServer(program, Path(folder), bundle=bundle)
        server.start()

        async def never(_revision: str) -> bool:
            return False

        def asking(own: EmbeddedEngine, **settings: bool) -> ServerEngine:
            chosen = OpaSettings.model_validate({"timeout_s": 10, **settings})
            return ServerEngine(server.url, own, chosen, clock=SystemClock(), was_in_force=never)

        plain, checked, remembering = asking(forgetting, cross_check=False), asking(forgetting), asking(engine)
        plain._memo = checked._memo = None  # noqa: SLF001
        print(f"{'microseconds':44} {'p50':>8} {'p99':>8} {'CPU':>8} {'per s':>8}")
        try:
            await measure("embedded, evaluated", forgetting.decide)
            await measure("embedded, remembered", engine.decide)
            await measure("OPA", plain.decide)
            await measure("OPA, cross-checked", checked.decide)
            await measure("OPA, cross-checked, remembered", remembering.decide)
            await measure("OPA, 16 at once", plain.decide, 16)
            await measure("OPA, cross-checked, 16 at once", checked.decide, 16)
        finally:
            for one in (plain, checked, remembering):
                await one.aclose()
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
