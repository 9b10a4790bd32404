"""The shipped manifests of coding agents: each tool is whole, and the shipped policies make of them what their heads say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.actions import Kind, ToolTarget
from gateway.catalog import Catalog, Manifest, read_registry, render_sentence
from gateway.policy import EmbeddedEngine, load
from gateway.settings import Config
from tests.policy.asking import POLICIES, asked, shipped

REGISTRY = Path(__file__).parents[2] / "tools_registry"
# What everybody who uses these agents knows them by; a manifest that lost one of them would go unnoticed otherwise.
KNOWN = {
    "claude-code": {
        *("Bash", "BashOutput", "KillShell", "Read", "Edit", "MultiEdit", "Write", "NotebookEdit", "Glob", "Grep"),
        *("LS", "WebFetch", "WebSearch", "Task", "Agent", "TodoWrite", "TaskCreate", "TaskUpdate", "ExitPlanMode"),
        *("EnterPlanMode", "AskUserQuestion", "Skill", "SlashCommand", "PowerShell", "Monitor", "ToolSearch"),
    },
    "codex": {
        *("shell", "local_shell", "shell_command", "exec_command", "write_stdin", "exec", "apply_patch"),
        *("update_plan", "view_image", "web_search", "read_file", "list_dir", "grep_files", "spawn_agent"),
        *("wait_agent", "send_input", "request_user_input", "read_mcp_resource", "create_goal"),
    },
}


def shipped_clients() -> dict[str, Manifest]:
    found, problems = read_registry(REGISTRY, {})
    assert found is not None
    assert problems == []
    return {one.server: one for one in found if one.kind == "client"}


def every_tool() -> list[ToolTarget]:
    return [manifest.target(name) for manifest in shipped_clients().values() for name in manifest.tools]


def sample(tool: ToolTarget) -> dict[str, Any]:
    return {name: f"some-{name}" for name in tool.arguments}


@pytest.fixture(name="engine", scope="module")
def _engine() -> EmbeddedEngine:
    return shipped()


def decide(engine: EmbeddedEngine, tool: ToolTarget, arguments: dict[str, Any] | None = None) -> str:
    given = sample(tool) if arguments is None else arguments
    return engine.decide_now(asked(Kind.TOOL_PROPOSE, tool, given)).effect.value


def test_both_agents_are_described_and_switched_on() -> None:
    clients = shipped_clients()
    assert set(clients) == set(KNOWN)
    for server, names in KNOWN.items():
        assert names <= set(clients[server].tools), names - set(clients[server].tools)


@pytest.mark.parametrize("tool", every_tool(), ids=lambda tool: tool.id)
def test_each_tool_says_in_a_sentence_what_it_would_do(tool: ToolTarget) -> None:
    assert tool.sentence
    told = render_sentence(tool, sample(tool))
    assert "(not given)" not in told
    assert "{" not in told
    for name in tool.arguments:
        assert f"{{{name}}}" not in tool.sentence or f"some-{name}" in told
    assert render_sentence(tool, {})  # a model may leave out what is optional


@pytest.mark.parametrize("tool", every_tool(), ids=lambda tool: tool.id)
def test_no_tool_is_without_risk_and_effect_and_none_is_denied_as_a_whole(tool: ToolTarget) -> None:
    assert tool.risk in {"low", "medium", "high", "critical"}
    assert tool.effect in {"read", "write", "egress"}


@pytest.mark.parametrize("tool", every_tool(), ids=lambda tool: tool.id)
def test_reads_pass_and_everything_else_waits_for_a_person(engine: EmbeddedEngine, tool: ToolTarget) -> None:
    assert decide(engine, tool) == ("allow" if tool.effect == "read" else "escalate")


@pytest.mark.parametrize("name", ["Bash", "PowerShell", "Monitor", "exec_command", "shell", "write_stdin", "exec"])
def test_whatever_runs_code_is_critical(name: str) -> None:
    (tool,) = [one for one in every_tool() if one.tool == name]
    assert (tool.risk, tool.effect) == ("critical", "write")


@pytest.mark.parametrize(
    ("isolation", "effect"), [(None, "allow"), ("worktree", "allow"), ("remote", "escalate"), ("moon", "escalate")]
)
def test_a_subagent_that_runs_elsewhere_waits_for_a_person(
    engine: EmbeddedEngine, isolation: str | None, effect: str
) -> None:
    for name in ("Agent", "Task"):
        (tool,) = [one for one in every_tool() if one.id == f"claude-code__{name}"]
        given = {"prompt": "p"} if isolation is None else {"prompt": "p", "isolation": isolation}
        assert decide(engine, tool, given) == effect


def test_a_grant_frees_the_editing_of_files_and_still_holds_every_command(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(POLICIES, folder)
    file = folder / "grants" / "data.yaml"
    data = yaml.safe_load(file.read_text())
    data["teams"]["finance"] = {"servers": {"claude-code": {"max_risk": "high", "unattended": ["read", "write"]}}}
    file.write_text(yaml.safe_dump(data))
    engine, problems = load(folder)
    assert engine is not None, problems
    by_name = {tool.tool: tool for tool in every_tool() if tool.server == "claude-code"}
    assert {decide(engine, by_name[name]) for name in ("Edit", "Write", "NotebookEdit", "Read")} == {"allow"}
    assert {decide(engine, by_name[name]) for name in ("Bash", "Monitor", "WebFetch", "SendMessage")} == {"escalate"}


def test_a_bare_name_finds_its_tool_in_the_catalog() -> None:
    found, _ = read_registry(REGISTRY, {})
    assert found is not None
    catalog = Catalog()
    catalog.install(catalog.prepare(Config(version=1), found))
    for tool in every_tool():
        assert catalog.client_tool(tool.tool) is not None
    shell = catalog.client_tool("Bash")
    assert shell is not None
    assert shell.id == "claude-code__Bash"
