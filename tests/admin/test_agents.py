from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest

from gateway.documents import errors
from gateway.identity import Role

from ..gateway_house import Running


async def test_an_agent_is_registered_with_its_first_key_and_the_person_is_on_record(running: Running) -> None:
    async with running.operator() as operator:
        wanted = {"id": "mine", "team": "t", "owners": {"business": "dana"}, "next_review": "2027-01-01"}
        made = await operator.post("/api/v1/agents", json=wanted)
        assert made.status_code == 201
        assert made.json()["owners"] == {"business": "dana"}
        secret = made.json()["key"]["secret"]
        assert (await operator.get("/api/v1/agents/mine")).json()["source"] == "api"
        keys = (await operator.get("/api/v1/agents/mine/keys")).json()
        assert [key["state"] for key in keys] == ["active"]
        assert secret not in str(keys)
    async with running.client(secret) as agent:
        assert (await agent.get("/api/v1/me")).json()["agent"]["id"] == "mine"
    (record,) = [one for one in await running.events("agent.registered") if one["labels"]["subject.agent"] == "mine"]
    assert record["actor"]["user"] == "operator"
    assert secret not in str(record)


async def test_an_id_that_is_taken_is_a_conflict(running: Running) -> None:
    async with running.operator() as operator:
        answer = await operator.post("/api/v1/agents", json={"id": "reader"})
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_suspended_agent_is_refused_within_a_second_and_until_resumed(running: Running) -> None:
    agent = await running.agent()
    async with running.operator() as operator, agent:
        began = time.monotonic()
        suspended = await operator.post("/api/v1/agents/reader/suspend", json={"reason": "odd"})
        assert suspended.json()["status"] == "suspended"
        body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
        refused = await agent.post("/v1/chat/completions", json=body)
        assert time.monotonic() - began < 1
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "agent_suspended")
        me = await agent.get("/api/v1/me")
        assert (me.status_code, me.json()["code"]) == (403, "agent_suspended")
        reloaded = await operator.post("/api/v1/reload")
        assert reloaded.status_code == 200
        assert (await agent.post("/v1/chat/completions", json=body)).status_code == 403
        await operator.post("/api/v1/agents/reader/resume", json={})
        assert (await agent.post("/v1/chat/completions", json=body)).status_code == 200


async def test_a_key_is_rotated_with_an_overlap_and_revoked(running: Running) -> None:
    agent = await running.agent()
    async with running.operator() as operator, agent:
        rotated = (await operator.post("/api/v1/agents/reader/rotate-key", json={"overlap_s": 60})).json()
        assert [old["state"] for old in rotated["replaces"]] == ["expiring"]
        async with running.client(rotated["secret"]) as renewed:
            for one in (agent, renewed):
                assert (await one.get("/api/v1/me")).status_code == 200
            ended = await operator.delete(f"/api/v1/agents/reader/keys/{rotated['id']}")
            assert ended.json()["state"] == "revoked"
            assert (await renewed.get("/api/v1/me")).status_code == 401
        bound = (await operator.post("/api/v1/agents/reader/keys", json={"user": "ada", "valid_s": 3600})).json()
        async with running.client(bound["secret"]) as for_ada:
            assert (await for_ada.get("/api/v1/me")).json()["user"] == "ada"


async def test_lists_have_a_limit_and_lead_on(running: Running) -> None:
    async with running.operator() as operator:
        for number in range(3):
            await operator.post("/api/v1/agents", json={"id": f"a{number}"})
        seen: list[str] = []
        url = "/api/v1/agents?limit=2"
        while url:
            answer = await operator.get(url)
            seen += [one["id"] for one in answer.json()]
            url = answer.links.get("next", {}).get("url", "")
        assert seen == ["a0", "a1", "a2", "reader", "writer"]
        assert (await operator.get("/api/v1/agents?limit=0")).status_code == 400


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.REVIEWER, Role.OWNER, Role.POLICY_AUTHOR])
async def test_only_operators_change_agents_and_the_attempt_is_recorded(running: Running, role: Role) -> None:
    browser = await running.person("eve", role)
    async with aclosing(browser):
        browser.headers["origin"] = "http://gateway.test"
        assert (await browser.get("/api/v1/agents")).status_code == 200
        for path, body in (
            ("/api/v1/agents", {"id": "x"}),
            ("/api/v1/agents/reader/suspend", {}),
            ("/api/v1/agents/reader/rotate-key", {}),
            ("/api/v1/people", {"id": "y"}),
            ("/api/v1/reload", {}),
        ):
            answer = await browser.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    refused = await running.all_events("person.refused", 5)
    assert {one["actor"]["user"] for one in refused} == {"eve"}


async def test_two_registrations_at_once_have_one_winner(running: Running) -> None:
    async with running.operator() as operator:
        answers = await asyncio.gather(*(operator.post("/api/v1/agents", json={"id": "race"}) for _ in range(5)))
    assert sorted(one.status_code for one in answers) == [201, 409, 409, 409, 409]


def message(method: str, *, modern: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """A message that asks for nothing, and its headers."""
    version = "2026-07-28" if modern else "2025-11-25"
    params: dict[str, Any] = {}
    if method == "initialize":
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": version,
        "host": "127.0.0.1",
    }
    if modern:
        prefix = "io.modelcontextprotocol"
        params["_meta"] = {f"{prefix}/protocolVersion": version, f"{prefix}/clientCapabilities": {}}
        headers["mcp-method"] = method
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, headers


@pytest.mark.parametrize(("method", "modern"), [("ping", False), ("initialize", False), ("server/discover", True)])
async def test_messages_that_ask_for_nothing_count_and_are_not_for_suspended_agents(
    running: Running, method: str, modern: bool
) -> None:
    body, headers = message(method, modern=modern)
    async with await running.agent() as agent, running.operator() as operator:
        first = await agent.post("/mcp", json=body, headers=headers)
        assert "result" in first.json(), first.text
        before = (await operator.get("/api/v1/audit/records?type=action.refused")).json()
        await operator.post("/api/v1/agents/reader/suspend", json={"reason": "odd"})
        refused = await agent.post("/mcp", json=body, headers=headers)
        assert refused.status_code == 403
        assert refused.json()["error"]["data"]["gateway/code"] == "agent_suspended"
        after = (await operator.get("/api/v1/audit/records?type=action.refused")).json()
        assert len(after) == len(before) + 1
        await operator.post("/api/v1/agents/reader/resume", json={})
        limit = "limits: {default: {requests_per_minute: 3}}\n"
        config = running.folder / "gateway.yaml"
        config.write_text(config.read_text() + limit)
        assert errors(await running.app.reload("test")) == []
        answers = [(await agent.post("/mcp", json=body, headers=headers)).status_code for _ in range(5)]
        assert 429 in answers
