"""Agents that run every tool that their SDK reads in an answer, behind the whole gateway: they run what was judged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import clients
from tests.e2e.fixtures import House, open_house
from tests.e2e.gateway_process import ROOT
from tests.e2e.upstream import chunk

PATIENCE_S = 40.0
TOOLS = ("TodoWrite", "Todo", "Write", "Agent")
GRANTS = 'agents: {}\nteams: {}\ntiers:\n  standard: {models: ["*"], servers: {claude-code: {max_risk: medium}}}\n'
NOT_ELSEWHERE = """\
package gateway

deny contains {"rule": "not_elsewhere", "reason": "Subagents run here."} if {
	input.action.kind == "tool.propose"
	input.action.arguments.isolation == "remote"
}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with the shipped manifest of Claude Code: TodoWrite and Agent are granted, Write is not."""
    clients.need(clients.NPM)
    with open_house(tmp_path_factory.mktemp("tool-agents"), ledger=False, start=False) as house:
        folder = house.gateway.folder
        shutil.copy(ROOT / "tools_registry" / "claude-code.yaml", folder / "tools_registry")
        (folder / "tools_registry" / "ledger.yaml").unlink()
        (folder / "policies" / "grants" / "data.yaml").write_text(GRANTS)
        shutil.rmtree(folder / "policies" / "ledger")
        (folder / "policies" / "not_elsewhere").mkdir()
        (folder / "policies" / "not_elsewhere" / "rules.rego").write_text(NOT_ELSEWHERE)
        house.gateway.start()
        yield house


def part(name: str | None, arguments: str, **members: Any) -> dict[str, Any]:
    """A delta of the call at index 0."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return chunk({"tool_calls": [{"index": 0, **members, "function": function}]})


def run(house: House, *events: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each agent saw and ran of an answer of these events."""
    play = house.upstream.streams(chunk({"role": "assistant", "content": "Well. "}), *events)
    agent = house.agent("tools")
    given = [f"{house.gateway.url}/v1", agent.key, "up", play.word, *TOOLS]
    return clients.node("tool_agent.mjs", *given).told(PATIENCE_S)


def test_a_call_of_two_names_is_run_by_nobody(house: House) -> None:
    seen = run(
        house,
        part("Todo", "", id="call_1", type="function"),
        part("Write", '{"file_path": "/etc/passwd", "content": ""}'),
        chunk({}, finish="tool_calls"),
    )
    for agent in seen.values():
        assert (agent["ran"], agent["error"], agent["finish"]) == ([], None, "stop")
        assert agent["text"].startswith("Well. ")
        assert "was not executed" in agent["text"]


@pytest.mark.parametrize(("isolation", "runs"), [("remote", False), ("worktree", True)])
def test_arguments_after_the_finish_reason_are_judged(house: House, isolation: str, *, runs: bool) -> None:
    named = part("Agent", "", id="call_1", type="function")
    named["choices"][0]["finish_reason"] = "stop"
    seen = run(house, named, part(None, '{"prompt": "go", '), part(None, f'"isolation": "{isolation}"}}'))
    for agent in seen.values():
        assert agent["error"] is None
        assert agent["ran"] == ([["Agent", {"prompt": "go", "isolation": isolation}]] if runs else [])
        assert ("was not executed" in agent["text"]) is not runs
