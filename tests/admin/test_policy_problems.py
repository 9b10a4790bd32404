"""What a running gateway says of its policies: typing errors, unknown names, failing tests, operators' notes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App
from gateway.errors import Refusal
from tests.footing import process_in
from tests.gateway_house import CONFIG, ROOT, Running

GRANTS = "agents:\n  reader:\n    models: [demo]\n    servers:\n      files: {max_risk: low}\nteams: {}\ntiers: {}\n"
MANIFEST = """
version: 1
server: files
kind: client
owner: dana
tools:
  read_file: {risk: low, effect: read}
  write_file: {risk: high, effect: write}
"""
MISTAKEN = (
    'package gateway\n\ndeny contains {"rule": "no_writes", "reason": "No."} if input.target.id == "files__writefile"\n'
)
FAILING = 'package own_test\n\nimport data.gateway.decision\n\ntest_own if {\n\tdecision.effect == "allow" with input as {}\n}\n'
REQUIRED = CONFIG.replace("policy: {path: policies}", "policy: {path: policies, tests: required}")


def write(running: Running, name: str, text: str) -> None:
    path = running.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.fixture
def own(running: Running) -> Running:
    """A gateway without the quickstart's rules for tools that it does not have."""
    shutil.rmtree(running.folder / "policies" / "ledger")
    shutil.rmtree(running.folder / "policies" / "claude-code")
    write(running, "tools_registry/files.yaml", MANIFEST)
    write(running, "policies/grants/data.yaml", GRANTS)
    return running


async def reloaded(running: Running, status: int = 200) -> dict[str, Any]:
    async with running.operator() as operator:
        answer = await operator.post("/api/v1/reload")
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def status(running: Running) -> dict[str, Any]:
    async with running.operator() as operator:
        return dict((await operator.get("/api/v1/status")).json())


async def test_nothing_is_said_where_everything_is_right(own: Running) -> None:
    assert (await reloaded(own))["warnings"] == []
    assert (await status(own))["configuration"] == {"errors": [], "warnings": []}


async def test_a_typing_error_in_the_grants_keeps_the_active_policy(own: Running) -> None:
    before = (await reloaded(own))["revision"]
    write(own, "policies/grants/data.yaml", GRANTS.replace("max_risk", "max-risk"))
    refused = await reloaded(own, 422)
    assert "grants/data.yaml:5: Unknown field 'max-risk'" in str(refused["errors"])
    assert "The previous version stays active" in refused["detail"]
    now = await status(own)
    assert now["policy"]["revision"] == before
    assert now["state"] == "degraded"
    assert "Did you mean 'max_risk'?" in now["configuration"]["errors"][0]


async def test_unknown_names_are_warnings_that_reload_status_check_and_explain_show(own: Running) -> None:
    write(own, "policies/grants/data.yaml", GRANTS.replace("reader:", "raeder:").replace("[demo]", "[dmeo]"))
    write(own, "policies/own.rego", MISTAKEN)
    warnings = (await reloaded(own))["warnings"]
    assert len(warnings) == 3
    agent, model, tool = sorted(warnings)
    assert "grants/data.yaml:2: warning: No agent 'raeder'" in agent
    assert "Did you mean 'reader'?" in agent
    assert "grants/data.yaml:3: warning: There is no model alias 'dmeo'" in model
    assert "own.rego:3: warning: There is no tool or model 'files__writefile'" in tool
    assert "Did you mean 'files__write_file'?" in tool
    now = await status(own)
    assert now["state"] == "ok"
    assert sorted(now["configuration"]["warnings"]) == sorted(warnings)
    async with own.operator() as operator:
        checked = (await operator.post("/api/v1/policy/check")).json()
        assert [(one["severity"], one["line"]) for one in checked] == [("warning", 2), ("warning", 3), ("warning", 3)]
        asked = {"agent": "reader", "target": "files__write_file"}
        explained = (await operator.post("/api/v1/policy/explain", json=asked)).json()
    assert sorted(explained["problems"]) == sorted(warnings)


async def test_an_agent_that_is_registered_meanwhile_is_known(own: Running) -> None:
    write(own, "policies/grants/data.yaml", GRANTS.replace("teams: {}", "teams: {sales: {models: [demo]}}"))
    (warning,) = (await reloaded(own))["warnings"]
    assert "team 'sales'" in warning
    async with own.operator() as operator:
        made = await operator.post("/api/v1/agents", json={"id": "seller", "team": "sales", "env": "dev"})
        assert made.status_code == 201, made.text
    assert (await status(own))["configuration"]["warnings"] == []
    assert (await reloaded(own))["warnings"] == []


# ---------------------------------------------------------------- tests of the policies


async def checked(own: Running) -> list[str]:
    """The severity of each problem of the tests that `gateway policy check` names."""
    async with own.operator() as operator:
        found = (await operator.post("/api/v1/policy/check")).json()
    return [one["severity"] for one in found if one["file"].endswith("own_test.rego")]


async def test_failing_tests_are_warnings_unless_they_are_required(own: Running) -> None:
    before = (await reloaded(own))["revision"]
    write(own, "policies/own_test.rego", FAILING)
    write(own, "policies/grants/data.yaml", f"{GRANTS}# changed\n")
    (warning,) = (await reloaded(own))["warnings"]
    assert 'own_test.rego:6: warning: The test data.own_test.test_own failed: decision.effect == "allow"' in warning
    assert 'expected "allow", got "deny"' in warning
    changed = (await status(own))["policy"]["revision"]
    assert changed != before
    write(own, "gateway.yaml", REQUIRED)
    write(own, "policies/grants/data.yaml", f"{GRANTS}# changed again\n")
    refused = await reloaded(own, 422)
    assert 'expected "allow", got "deny"' in str(refused["errors"])
    now = await status(own)
    assert await checked(own) == ["warning"]  # by the configuration that is active: there they are reported
    assert now["policy"]["revision"] == changed
    assert now["state"] == "degraded"
    reason = next(one["reason"] for one in now["components"] if one["id"] == "configuration")
    assert "The test data.own_test.test_own failed" in reason
    write(own, "policies/own_test.rego", FAILING.replace('"allow"', '"deny"'))
    assert (await reloaded(own))["revision"] != changed
    assert (await status(own))["state"] == "ok"
    assert await checked(own) == []
    write(own, "policies/own_test.rego", FAILING)
    assert await checked(own) == ["error"]  # a reload would be refused, so the check says so


@pytest.mark.parametrize(
    "text", ["package own_test\n\ntest_own if {{\n", "package own_test\n\ntest_a if true\n\ntest_a if true\n"]
)
async def test_tests_that_cannot_be_run_have_not_passed(own: Running, text: str) -> None:
    write(own, "policies/own_test.rego", text)
    write(own, "gateway.yaml", REQUIRED)
    assert "own_test.rego" in str((await reloaded(own, 422))["errors"])


async def test_tests_are_not_run_where_they_are_switched_off(own: Running) -> None:
    write(own, "policies/own_test.rego", FAILING)
    write(own, "gateway.yaml", CONFIG.replace("{path: policies}", "{path: policies, tests: off}"))
    assert (await reloaded(own))["warnings"] == []


async def test_a_gateway_does_not_start_with_policies_whose_required_tests_fail(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    (tmp_path / "tools_registry").mkdir()
    (tmp_path / "gateway.yaml").write_text(REQUIRED)
    (tmp_path / "policies" / "own_test.rego").write_text(FAILING)
    with pytest.raises(Refusal) as refused:
        await App(process_in(tmp_path, request)).start()
    assert refused.value.code == "invalid_configuration"
    assert "own_test.rego:6: The test data.own_test.test_own failed" in refused.value.message
    assert 'expected "allow", got "deny"' in refused.value.message
    (tmp_path / "policies" / "own_test.rego").unlink()
    app = App(process_in(tmp_path, request))
    await app.start()
    await app.stop(1)


async def test_tests_say_what_they_expected_and_got(own: Running) -> None:
    write(own, "policies/own_test.rego", FAILING)
    async with own.operator() as operator:
        trials = (await operator.post("/api/v1/policy/test")).json()
    (failed,) = [one for one in trials if not one["passed"]]
    assert (failed["line"], failed["failed_line"], failed["expected"], failed["got"]) == (5, 6, '"allow"', '"deny"')


# ---------------------------------------------------------------- explain


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ({"target": "files__writefile"}, "unknown_tool", "Did you mean 'files__write_file'?"),
        ({"target": "write_fil"}, "unknown_tool", "There is no tool 'write_fil'. Did you mean 'files__write_file'?"),
        ({"target": "dmeo", "kind": "model.invoke"}, "model_not_found", "Did you mean 'demo'?"),
        ({"target": "demo", "kind": "tool.call"}, "unknown_tool", "demo is a model alias: use --kind model.invoke"),
        ({"target": "fliess", "kind": "tool.list"}, "unknown_tool", "There is no tool server 'fliess'"),
        ({"target": "demo", "agent": "raeder"}, "not_found", "Did you mean 'reader'?"),
    ],
)
async def test_an_operator_who_misspells_is_told_what_there_is(
    own: Running, asked: dict[str, str], code: str, said: str
) -> None:
    await reloaded(own)
    async with own.operator() as operator:
        answer = await operator.post("/api/v1/policy/explain", json={"agent": "reader", **asked})
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert said in answer.json()["detail"]
    assert "not for this agent" not in answer.json()["detail"]


@pytest.mark.parametrize(
    ("target", "kind", "rules"),
    [
        ("demo", None, ["model_granted"]),
        ("files__read_file", None, ["read_allowed"]),
        ("files__read_file", "tool.list", ["no_rule_matched"]),
    ],
)
async def test_the_kind_follows_from_the_target(own: Running, target: str, kind: str | None, rules: list[str]) -> None:
    await reloaded(own)
    async with own.operator() as operator:
        asked = {"agent": "reader", "target": target, **({"kind": kind} if kind else {})}
        answer = await operator.post("/api/v1/policy/explain", json=asked)
    assert answer.json()["rules"] == rules


# ---------------------------------------------------------------- two texts per rule


async def test_people_read_notes_and_agents_read_reasons(own: Running) -> None:
    await reloaded(own)
    secret = "ask-the-operator-to-change-the-grant"
    rule = (
        'package gateway\n\ndeny contains {"rule": "no_model", "reason": "Use another model.", '
        f'"note": "{secret}"}} if input.action.kind == "model.invoke"\n'
    )
    write(own, "policies/own.rego", rule)
    await reloaded(own)
    agent = await own.agent()
    async with agent, own.operator() as operator:
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
        refused = await agent.post("/v1/chat/completions", json=body)
        assert refused.status_code == 403
        assert "Use another model." in refused.text
        action = refused.headers["x-gateway-action"]
        (record,) = await own.all_events("action.refused", 1)
        mine = await agent.get(f"/api/v1/actions/{action}")
        assert mine.json()["reasons"] == ["Use another model."]
        for answer in (refused, mine, await agent.get("/api/v1/me")):
            assert secret not in answer.text
            assert secret not in str(answer.headers)
        assert record["decision"]["notes"] == [secret]
        explained = (await operator.post("/api/v1/policy/explain", json={"agent": "reader", "target": "demo"})).json()
        assert explained["notes"] == [secret]
        assert explained["reasons"] == ["Use another model."]
