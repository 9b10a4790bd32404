"""GET /api/v1/policy/bundle: OPA servers poll it."""

from __future__ import annotations

import httpx
import pytest

from gateway.documents import errors

from ..gateway_house import CONFIG, Running

TOKEN = "bundle-token-0123456789"
PATH = "/api/v1/policy/bundle"


async def with_token(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPA_BUNDLE_TOKEN", TOKEN)
    policy = "policy: {path: policies, opa: {bundle_token: 'env:OPA_BUNDLE_TOKEN'}}"
    (running.folder / "gateway.yaml").write_text(CONFIG.replace("policy: {path: policies}", policy))
    assert not errors(await running.app.reload("test"))


async def test_opa_fetches_it_once_for_each_revision(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_token(running, monkeypatch)
    async with running.client(TOKEN) as opa:
        first = await opa.get(PATH)
        assert first.status_code == 200
        assert first.headers["content-type"] == "application/gzip"
        assert first.headers["etag"] == f'"{running.app.policy.revision}"'
        assert first.content == running.app.configured.engine.bundle()
        unchanged = await opa.get(PATH, headers={"If-None-Match": first.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        (running.folder / "policies" / "ledger" / "data.yaml").write_text("payees: {}\nunattended_limit_cents: 1\n")
        assert not errors(await running.app.reload("test"))
        changed = await opa.get(PATH, headers={"If-None-Match": first.headers["etag"]})
        assert changed.status_code == 200
        assert changed.headers["etag"] != first.headers["etag"]


async def test_people_may_fetch_it_and_nobody_else(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running.operator() as operator:
        assert (await operator.get(PATH)).status_code == 200
    agent = await running.agent()

    async def status(client: httpx.AsyncClient) -> int:
        async with client:
            return (await client.get(PATH)).status_code

    assert await status(running.client(TOKEN)) == 401  # nothing is configured
    await with_token(running, monkeypatch)
    assert await status(agent) == 401
    assert await status(running.client()) == 401
    assert await status(running.client(TOKEN + "x")) == 401
    async with running.client(TOKEN) as opa:  # and the token opens nothing else
        for path in ("/api/v1/policy", "/api/v1/agents", "/api/v1/status"):
            assert (await opa.get(path)).status_code == 401
    monkeypatch.delenv("OPA_BUNDLE_TOKEN")
    assert await status(running.client(TOKEN)) == 401
