"""An OPA server behind the doors: its decision's id is on record, and while it is away nothing is allowed."""

from __future__ import annotations

from pathlib import Path

from gateway.clock import SystemClock
from gateway.config import OpaServer as OpaSettings
from gateway.policy.server import ServerEngine
from tests import opa

from ..gateway_house import Running

BODY = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}


async def test_what_opa_decided_is_on_record_and_without_it_nothing_is_allowed(
    running: Running, tmp_path: Path
) -> None:
    own = running.app.configured.engine
    server = opa.serve(tmp_path / "opa", own)
    engine = ServerEngine(
        server.url, own, OpaSettings(timeout_s=5), clock=SystemClock(), was_in_force=opa.never_in_force
    )
    try:
        await engine.look()
        running.app.policy.swap(engine, undeclared="deny")
        agent = await running.agent()
        answer = await agent.post("/v1/chat/completions", json=BODY)
        before = answer.status_code
        async with running.operator() as operator:
            record = (await running.app.log.show(answer.headers["x-gateway-action"])).record
            label = record["labels"]["decision_id"]
            assert record["decision"]["revision"] == own.revision
            assert label in server.log.read_text()
            wanted = {"agent": "reader", "kind": "model.invoke", "target": "demo"}
            explained = (await operator.post("/api/v1/policy/explain", json=wanted)).json()
            assert explained["decided"]["revision"] == explained["revision"]
        server.kill()
        refused = await agent.post("/v1/chat/completions", json={**BODY, "max_tokens": 7, "model": "other"})
        assert refused.status_code != 401
        engine._memo = None
        refused = await agent.post("/v1/chat/completions", json=BODY)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "policy_unavailable")
        assert refused.headers["retry-after"] == "1"
        server.start()
        again = await agent.post("/v1/chat/completions", json=BODY)
        assert again.status_code == before
    finally:
        await engine.aclose()
        server.stop()
