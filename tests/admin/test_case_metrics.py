"""What Prometheus is told of cases."""

from __future__ import annotations

from tests.bank_house import Bank


async def samples(bank: Bank) -> dict[str, float]:
    """The metrics of cases by name and labels."""
    async with bank.running.client() as anyone:
        lines = (await anyone.get("/metrics")).text.splitlines()
    ours = [line.rpartition(" ") for line in lines if line.startswith("gateway_approvals_")]
    return {name: float(value) for name, _, value in ours}


async def test_cases_are_counted_while_they_wait_and_timed_once_decided(bank: Bank) -> None:
    agent = await bank.running.agent()
    case_id = await bank.case(agent)
    other = await bank.case(agent, reference="INV-10")
    assert (await samples(bank))["gateway_approvals_pending"] == 2
    reviewer = await bank.reviewer()
    for one, decision in ((case_id, "approve"), (other, "deny")):
        shown = (await reviewer.get(f"/api/v1/approvals/{one}")).json()
        vote = {"decision": decision, "presented_digest": shown["presented_digest"], "guidance": "Not now."}
        assert (await reviewer.post(f"/api/v1/approvals/{one}/reviews", json=vote)).status_code == 200
    found = await samples(bank)
    assert found["gateway_approvals_pending"] == 0
    assert found["gateway_approvals_unknown"] == 0
    assert found['gateway_approvals_decision_seconds_count{outcome="approved"}'] == 1
    assert found['gateway_approvals_decision_seconds_count{outcome="denied"}'] == 1
    assert 'gateway_approvals_decision_seconds_bucket{le="3600.0",outcome="denied"}' in found
