from __future__ import annotations

from contextlib import aclosing

import pytest

from gateway.identity import Role

from ..gateway_house import CONFIG, Running, use_link

MANIFEST = """
version: 1
server: files
kind: client
title: Files
owner: dana
tools:
  read_file: {risk: low, effect: read, sentence: "Read {path}", arguments: {path: {kind: path}}}
"""


async def test_status_tells_what_runs_and_who_was_refused(running: Running) -> None:
    agent = await running.agent()
    await agent.post("/v1/chat/completions", json={"model": "nothing", "messages": []})
    async with running.operator() as operator:
        await operator.post("/api/v1/agents/writer/suspend", json={})
        status = (await operator.get("/api/v1/status")).json()
    assert status["state"] == "ok"
    assert status["policy"]["revision"] == running.app.policy.revision
    assert status["agents"] == {"registered": 2, "suspended": ["writer"]}
    assert {one["id"]: one["state"] for one in status["components"]}["audit"] == "ok"
    assert status["refusals"] == [
        {"id": "reader:model_not_found", "agent": "reader", "code": "model_not_found", "count": 1}
    ]


async def test_a_reload_that_is_invalid_says_why_and_leaves_the_old_state(running: Running) -> None:
    async with running.operator() as operator:
        before = (await operator.get("/api/v1/policy")).json()["revision"]
        (running.folder / "gateway.yaml").write_text(CONFIG.replace("provider: demo,", "provder: demo,"))
        refused = await operator.post("/api/v1/reload")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_configuration")
        assert "gateway.yaml:7" in refused.text
        assert (await operator.get("/api/v1/status")).json()["state"] == "degraded"
        assert (await operator.get("/api/v1/policy")).json()["revision"] == before
        assert [one["id"] for one in (await operator.get("/api/v1/models")).json()] == ["demo"]
        (running.folder / "gateway.yaml").write_text(CONFIG.replace("{alias: demo,", "{alias: other,"))
        (running.folder / "tools_registry" / "files.yaml").write_text(MANIFEST)
        assert (await operator.post("/api/v1/reload")).status_code == 200
        assert (await operator.get("/api/v1/status")).json()["state"] == "ok"
        assert [one["id"] for one in (await operator.get("/api/v1/models")).json()] == ["other"]
        (tool,) = (await operator.get("/api/v1/tools")).json()
        assert (tool["id"], tool["state"], tool["risk"]) == ("files__read_file", "client", "low")
        assert (await operator.get("/api/v1/tools/files__read_file")).json()["owner"] == "dana"
    outcomes = [one["labels"]["outcome"] for one in await running.events("gateway.reload")]
    assert outcomes == ["in force", "refused"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("environment: prod", "environment"),
        ("audit: {capture: metadata}", "audit.capture"),
        ("server: {max_body_bytes: 4096}", "server.max_body_bytes"),
    ],
)
async def test_a_reload_refuses_what_only_a_restart_can_change(running: Running, line: str, named: str) -> None:
    file = running.folder / "gateway.yaml"
    text = CONFIG.replace("environment: dev\n", "").replace("alias: demo", "alias: other") + line + "\n"
    file.write_text(text)
    async with running.operator() as operator:
        refused = await operator.post("/api/v1/reload")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_configuration")
        where = f"{file}:{text[: text.index(line)].count(chr(10)) + 1}"
        assert f"{where}: {named} can't change while the gateway runs. Restart the gateway" in refused.text
        assert [one["id"] for one in (await operator.get("/api/v1/models")).json()] == ["demo"]
        file.write_text(CONFIG)
        assert (await operator.post("/api/v1/reload")).status_code == 200


async def test_people_are_added_and_removed_and_an_operator_signs_them_in(running: Running) -> None:
    async with running.operator() as operator:
        added = await operator.post("/api/v1/people", json={"id": "olga", "name": "Olga", "roles": ["auditor"]})
        assert added.status_code == 201
        assert (await operator.post("/api/v1/people", json={"id": "olga"})).status_code == 409
        assert (await operator.post("/api/v1/people", json={"id": "x", "roles": ["king"]})).status_code == 400
        link = (await operator.post("/api/v1/sign-in", json={"person": "olga"})).json()["url"]
        browser = running.client()
        assert (await use_link(browser, link.partition("token=")[2])).status_code == 303
        assert (await browser.get("/api/v1/people/me")).json()["roles"] == ["auditor"]
        assert [one["id"] for one in (await operator.get("/api/v1/people")).json()] == ["olga", "operator"]
        assert (await operator.delete("/api/v1/people/olga")).status_code == 200
        assert (await browser.get("/api/v1/people/me")).status_code == 401
        assert (await operator.delete("/api/v1/people/operator")).status_code == 409


async def test_only_operators_make_links_for_others(running: Running) -> None:
    browser = await running.person("rita", Role.REVIEWER)
    async with aclosing(browser):
        browser.headers["origin"] = "http://gateway.test"
        refused = await browser.post("/api/v1/sign-in", json={"person": "operator"})
        assert refused.json()["code"] == "forbidden"
        own = await browser.post("/api/v1/sign-in", json={})
        assert own.json()["person"] == "rita"


async def test_a_write_by_cookie_from_another_site_is_refused(running: Running) -> None:
    browser = await running.person("oscar", Role.OPERATOR)
    async with aclosing(browser):
        for headers in (
            {},
            {"origin": "http://evil.test"},
            {"origin": "http://gateway.test", "sec-fetch-site": "cross-site"},
        ):
            answer = await browser.post("/api/v1/agents/reader/suspend", json={}, headers=headers)
            assert answer.json()["code"] == "forbidden"
        good = await browser.post("/api/v1/agents/reader/suspend", json={}, headers={"origin": "http://gateway.test"})
        assert good.status_code == 200


async def test_openapi_lists_every_route_and_needs_nothing_from_elsewhere(running: Running) -> None:
    async with running.client() as nobody:
        document = (await nobody.get("/api/v1/openapi.json")).json()
        assert {"/api/v1/agents", "/api/v1/status", "/api/v1/audit/records", "/api/v1/me"} <= set(document["paths"])
        assert (await nobody.get("/docs")).status_code == 404


async def test_probes_answer_anyone(running: Running) -> None:
    async with running.client() as nobody:
        assert (await nobody.get("/livez")).text == "ok\n"
        assert (await nobody.get("/readyz")).json() == {"ready": True, "missing": {}, "degraded": []}
        metrics = await nobody.get("/metrics")
        assert "gateway_" in metrics.text


async def test_a_gateway_that_stops_or_cannot_record_is_alive_but_not_ready(running: Running) -> None:
    async with running.client() as nobody:
        running.app.is_stopping = True
        assert (await nobody.get("/readyz")).status_code == 503
        running.app.is_stopping = False
        running.app.writer.latch("the test says so")
        answer = await nobody.get("/readyz")
        assert answer.status_code == 503
        assert list(answer.json()["missing"]) == ["audit"]
        assert (await nobody.get("/livez")).status_code == 200


@pytest.mark.parametrize("name", ["files__read_file", "read_file"])
@pytest.mark.parametrize("kind", ["tool.call", "tool.propose"])
async def test_an_agents_own_tool_is_explained_by_its_full_id_and_its_bare_name(
    running: Running, name: str, kind: str
) -> None:
    (running.folder / "tools_registry" / "files.yaml").write_text(MANIFEST)
    async with running.operator() as operator:
        await operator.post("/api/v1/reload")
        asked = {"agent": "reader", "kind": kind, "target": name, "arguments": {"path": "/tmp/x"}}
        told = await operator.post("/api/v1/policy/explain", json=asked)
        assert told.status_code == 200
        bare = await operator.post("/api/v1/policy/explain", json={**asked, "target": "read_file"})
        assert (told.json()["effect"], told.json()["rules"]) == (bare.json()["effect"], bare.json()["rules"])
        unknown = await operator.post("/api/v1/policy/explain", json={**asked, "target": "files__nothing"})
        assert unknown.json()["code"] == "unknown_tool"


async def test_an_agent_learns_what_it_may_do(running: Running) -> None:
    (running.folder / "tools_registry" / "files.yaml").write_text(MANIFEST)
    agent = await running.agent(user="ada")
    async with running.operator() as operator, agent:
        await operator.post("/api/v1/reload")
        me = (await agent.get("/api/v1/me", headers={"x-gateway-session": "run-1"})).json()
    assert me["agent"]["id"] == "reader"
    assert me["user"] == "ada"
    assert me["session"]["id"].startswith("run-1~")
    assert [one["id"] for one in me["models"]] == ["demo"]
    assert set(me["limits"]) >= {"agent:reader"}
    assert me["waiting"] == []


async def test_an_agent_asks_for_its_own_actions_only(running: Running) -> None:
    mine, other = await running.agent(), await running.agent("writer")
    action = await running.ask(mine)
    shown = (await mine.get(f"/api/v1/actions/{action}", params={"wait": 5})).json()
    assert (shown["status"], shown["decision"], shown["kind"]) == ("succeeded", "allow", "model.invoke")
    assert (await other.get(f"/api/v1/actions/{action}")).status_code == 404
    for_ada = await running.agent(user="ada")
    assert (await for_ada.get(f"/api/v1/actions/{action}")).status_code == 404
    assert (await mine.get("/api/v1/actions/none")).status_code == 404
    assert (await mine.get(f"/api/v1/actions/{action}", params={"wait": 26})).status_code == 400


@pytest.mark.parametrize("path", ["/api/v1/agents", "/api/v1/people", "/api/v1/models", "/api/v1/tools"])
async def test_lists_are_arrays_of_objects_with_an_id(running: Running, path: str) -> None:
    async with running.operator() as operator:
        found = (await operator.get(path)).json()
    assert isinstance(found, list)
    assert all(one["id"] for one in found)
