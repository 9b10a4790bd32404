from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.doors.admin.problem import MAX_BODY_BYTES
from gateway.errors import CODES

from ..gateway_house import Running


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"/api/v1/errors/{code}"
    assert body["title"] == CODES[code].meaning
    assert body["request_id"] == answer.headers["x-request-id"] == answer.headers["request-id"]
    assert "Traceback" not in answer.text
    return body


async def test_without_a_credential_nothing_is_told_but_how_to_get_one(running: Running) -> None:
    async with running.client() as nobody:
        for path in ("/api/v1/status", "/api/v1/agents", "/api/v1/audit/records", "/api/v1/people", "/api/v1/tools"):
            body = is_problem(await nobody.get(path), 401, "unauthenticated")
            assert "gateway login" in body["detail"]
        answer = await nobody.get("/api/v1/me")
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_agents_key_does_not_open_the_doors_of_people(running: Running) -> None:
    agent = await running.agent()
    async with agent:
        body = is_problem(await agent.get("/api/v1/agents"), 401, "unauthenticated")
        assert "agent" in body["detail"]


async def test_a_persons_token_is_no_agents_key(running: Running) -> None:
    async with running.operator() as operator:
        is_problem(await operator.get("/api/v1/me"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", "#"),
        (b"{", "#/1"),
        (b"[]", "#"),
        (b'{"id": 7}', "#/id"),
        (b'{"id": "a b"}', "#/id"),
        (b'{"id": "x", "owner": {}}', "#/owner"),
        (b'{"id": "x", "labels": {"a/b": 1}}', "#/labels/a~1b"),
        (b'{"id": "x", "team": "a\\u0000b"}', "#/team"),
        (b"\xff\xfe", "#"),
        (b'{"id": ' + b"[" * 100_000, "#"),
    ],
)
async def test_bad_bodies_are_malformed_and_say_where(running: Running, body: bytes, pointer: str) -> None:
    async with running.operator() as operator:
        answer = await operator.post("/api/v1/agents", content=body, headers={"content-type": "application/json"})
        told = is_problem(answer, 400, "malformed")
        if "errors" in told:
            assert told["errors"][0]["pointer"].startswith(pointer)


async def test_a_body_that_is_too_large_is_refused(running: Running) -> None:
    async with running.operator() as operator:
        answer = await operator.post("/api/v1/agents", content=b"x" * (MAX_BODY_BYTES + 1))
        is_problem(answer, 413, "too_large")


async def test_unknown_paths_and_methods_are_problems_too(running: Running) -> None:
    async with running.operator() as operator:
        is_problem(await operator.get("/api/v1/nothing"), 404, "not_found")
        is_problem(await operator.get("/nothing/<script>"), 404, "not_found")
        answer = await operator.put("/api/v1/agents", json={})
        is_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]
        is_problem(await operator.get("/api/v1/agents/nobody"), 404, "not_found")
        is_problem(await operator.get("/api/v1/agents/nobody/keys"), 404, "not_found")
        is_problem(await operator.get("/api/v1/tools/nothing"), 404, "not_found")
        is_problem(await operator.get("/api/v1/audit/records?limit=x"), 400, "malformed")
        is_problem(await operator.get("/api/v1/audit/records?cursor=x"), 400, "malformed")
        is_problem(await operator.get("/api/v1/audit/records?since=yesterday"), 400, "malformed")


async def test_every_code_has_a_page_that_its_problem_points_to(running: Running) -> None:
    async with running.client() as nobody:
        listed = (await nobody.get("/api/v1/errors")).json()
        assert [one["id"] for one in listed] == list(CODES)
        for code in CODES:
            shown = (await nobody.get(f"/api/v1/errors/{code}")).json()
            assert shown["http_status"] == CODES[code].http_status


async def test_a_fault_is_a_problem_with_the_request_id_and_no_traceback(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(running.app.registry.agents, "all", broken)
    async with running.operator() as operator:
        answer = await operator.get("/api/v1/agents")
    body = is_problem(answer, 500, "internal")
    assert "secret detail" not in answer.text
    assert body["request_id"] in caplog.text


async def test_a_latched_log_refuses_changes_and_reads_but_not_the_status(running: Running) -> None:
    running.app.writer.latch("the test says so")
    async with running.operator() as operator:
        is_problem(await operator.post("/api/v1/agents", json={"id": "x"}), 503, "audit_unavailable")
        is_problem(await operator.get("/api/v1/audit/records"), 503, "audit_unavailable")
        status = (await operator.get("/api/v1/status")).json()
        assert status["state"] == "degraded"
        assert status["audit"]["latched"] == "the test says so"
        (log,) = [one for one in status["components"] if one["id"] == "audit"]
        assert log["state"] == "degraded"
        assert log["since"]


@pytest.mark.parametrize("path", ["/api/v1/agents", "/api/v1/policy/explain", "/api/v1/people", "/api/v1/tokens"])
@pytest.mark.parametrize("body", [b"{", b'{"id": 7}', b"[" * 100_000, b"x" * (2 * 1024 * 1024)])
async def test_the_body_of_a_stranger_is_not_read(running: Running, path: str, body: bytes) -> None:
    async with running.client() as nobody:
        answer = await nobody.post(path, content=body, headers={"content-type": "application/json"})
        is_problem(answer, 401, "unauthenticated")
