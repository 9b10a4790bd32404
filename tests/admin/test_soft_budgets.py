"""A soft budget that is passed refuses nothing: it is counted, recorded once, and told to policy and to the agent."""

from __future__ import annotations

import asyncio

from gateway.documents import errors
from tests.gateway_house import CONFIG, Running

SOFT = """
limits:
  default:
    budgets:
      - {window: day, usd: "0.000001", hard: false}
"""


async def test_a_soft_budget_that_is_passed_is_told_once(running: Running) -> None:
    (running.folder / "gateway.yaml").write_text(CONFIG + SOFT)
    assert not errors(await running.app.reload("test"))
    async with await running.agent() as agent:
        for _ in range(3):
            await running.ask(agent)
        (budget,) = (await agent.get("/api/v1/me")).json()["limits"]["agent:reader"]["budgets"]
    assert not budget["hard"]
    assert budget["left_nanousd"] == 0
    async with asyncio.timeout(20):
        while not (found := await running.events("budget.passed")):
            await asyncio.sleep(0.01)
    assert [one["labels"]["subject.level"] for one in found] == ["agent:reader"]
    assert "nothing is refused" in found[0]["labels"]["message"]
    async with running.operator() as operator:
        text = (await operator.get("/metrics")).text
    assert 'gateway_soft_budgets_passed_total{level="agent"} 1.0' in text
