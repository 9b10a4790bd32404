"""Invariant 1: no policy, no matching rule, a policy error or an undefined result is a deny; so is what is unknown."""

from __future__ import annotations

import json

import pytest

from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.upstream import call, completion


def test_who_is_not_registered_gets_nothing(house: House) -> None:
    for headers in (
        {},
        {"authorization": "Bearer made-up"},
        {"authorization": "Basic Zm9vOmJhcg=="},
        {"x-api-key": ""},
    ):
        for path in ("/v1/models", "/v1/chat/completions", "/mcp", "/mcp/ledger", "/api/v1/me", "/api/v1/agents"):
            assert house.gateway.get(path, **headers).status_code == 401, path


def test_an_agent_that_was_given_nothing_may_do_nothing(house: House) -> None:
    made = house.gateway.operator("POST", "/agents", {"id": "no-grants", "tier": "unheard-of"})
    agent = house.gateway.agent("no-grants")
    assert made.json()["id"] == agent.name
    with agent.client() as client:
        assert client.get("/v1/models").json()["data"] == []
    assert agent.chat("Hello").status_code == 404
    assert "Unknown tool" in agent.pay("no-grants")["error"]["message"]
    assert house.ledger.transfers("no-grants") == 0


def test_a_proposed_tool_that_nobody_declared_is_taken_out_of_the_answer(house: House) -> None:
    agent = house.agent()
    play = house.upstream.answers(completion("Let me see.", calls=[call("rm_rf", {"path": "/"})]))
    choice = agent.chat(play.word).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert not choice["message"].get("tool_calls")
    assert "No manifest declares" in choice["message"]["content"]


_DEFAULT = 'default decision := {"effect": "deny", "rules": ["default"], "reasons": ["Nothing allows it."]}'
_ALLOW = '{"effect": "allow", "rules": ["r"], "reasons": ["x"]}'


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([f'decision := {_ALLOW} if input.agent.tier == "gold"'], id="no rule matches"),
        pytest.param(
            [
                f'decision := {_ALLOW} if input.claimed.purpose == "test"',
                f'decision := {_ALLOW.replace("x", "y")} if input.claimed.purpose in {{"test", "x"}}',
            ],
            id="two rules that disagree",
        ),
    ],
)
def test_a_policy_without_an_answer_denies(make_house: MakesHouse, rules: list[str]) -> None:
    house = make_house(ledger=False, start=False)
    _replace_policies(house, *rules)
    house.gateway.start()
    agent = house.gateway.agent("denied")
    for stream in (False, True):
        body = {"model": "up", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
        answer = agent.post("/v1/chat/completions", json.dumps(body).encode(), **{"x-gateway-purpose": "test"})
        assert answer.status_code in (403, 404), answer.text
    assert house.upstream.received == []
    assert all(record["decision"]["effect"] == "deny" for record in agent.refusals(2))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(f"decision := {_ALLOW.replace('allow', 'perhaps')} if true", id="an effect that does not exist"),
        pytest.param(f"decision := {_ALLOW} if input.no_such_field", id="a field that the input has not"),
    ],
)
def test_a_policy_that_can_not_be_right_refuses_the_start(make_house: MakesHouse, rule: str) -> None:
    house = make_house(ledger=False, start=False)
    _replace_policies(house, rule)
    house.gateway.launch()
    assert house.gateway.wait_ended() == 1
    said = "\n".join(house.gateway.lines)
    assert str(house.gateway.folder / "policies") in said
    assert "Traceback" not in said


def _replace_policies(house: House, *rules: str) -> None:
    policies = house.gateway.folder / "policies"
    for file in policies.rglob("*.rego"):
        file.unlink()
    (policies / "gateway.rego").write_text("\n\n".join(["package gateway", _DEFAULT, *rules]) + "\n")
