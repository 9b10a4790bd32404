from __future__ import annotations

import asyncio
from contextlib import aclosing

from gateway.identity import Role

from ..gateway_house import Running


async def test_the_trail_is_read_by_auditors_and_each_read_is_on_record(running: Running) -> None:
    agent = await running.agent(user="ada")
    action = await running.ask(agent)
    browser = await running.person("olga", Role.AUDITOR)
    async with aclosing(browser):
        found = (await browser.get("/api/v1/audit/records", params={"action": action})).json()
        assert [one["type"] for one in found] == ["action.result", "action.intent"]
        assert found[0]["actor"]["agent"] == "reader"
        shown = (await browser.get(f"/api/v1/audit/records/{action}")).json()
        assert shown["record"]["type"] == "action.intent"
        assert shown["payloads"] == []
        disclosed = (await browser.get(f"/api/v1/audit/records/{action}", params={"disclose": "true"})).json()
        assert "Hello" in str(disclosed["payloads"])
    reads = [one for one in await running.events("audit.read") if one["actor"]["user"] == "olga"]
    assert [one["labels"].get("subject.disclosed") for one in reads] == ["yes", "no", None]
    assert action in str(reads[2]["labels"])


async def test_others_do_not_read_the_trail(running: Running) -> None:
    browser = await running.person("rita", Role.REVIEWER)
    async with aclosing(browser):
        for path in ("/api/v1/audit/records", "/api/v1/audit/records/x", "/api/v1/audit/checkpoint"):
            assert (await browser.get(path)).json()["code"] == "forbidden"
    assert await running.events("audit.read") == []


async def test_records_are_filtered_and_paged_newest_first(running: Running) -> None:
    agent = await running.agent()
    actions = [await running.ask(agent) for _ in range(3)]
    async with running.operator() as operator:
        query = {"type": "action.result", "kind": "model.invoke", "limit": "2"}
        first = await operator.get("/api/v1/audit/records", params=query)
        assert [one["action"]["id"] for one in first.json()] == actions[:0:-1]
        rest = await operator.get(first.links["next"]["url"])
        assert [one["action"]["id"] for one in rest.json()] == actions[:1]
        assert "next" not in rest.links
        nothing = await operator.get("/api/v1/audit/records", params={"kind": "tool.call"})
        assert nothing.json() == []
        later = await operator.get("/api/v1/audit/records", params={"since": "2100-01-01T00:00:00Z"})
        assert later.json() == []


async def test_the_last_checkpoint_is_shown_as_signed(running: Running) -> None:
    async with running.operator() as operator, asyncio.timeout(20):
        while (answer := await operator.get("/api/v1/audit/checkpoint")).status_code != 200:
            await asyncio.sleep(0.05)  # at most about a second after a replica's start
        last = answer.json()
    assert last["note"].startswith("gateway.local/audit/default\n")
    assert last["signed_size"] >= 1
    assert last["vkey"].startswith("gateway.local/audit/default+")
