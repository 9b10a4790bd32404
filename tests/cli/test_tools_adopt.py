"""From a tool that an agent was seen to declare to a manifest that decides on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.catalog import read_registry

from .conftest import Shell

BALANCE = {"type": "function", "function": {"name": "get_balance", "parameters": {"type": "object", "properties": {}}}}
TRANSFER = {
    "type": "function",
    "function": {
        "name": "transfer",
        "description": "Moves money.",
        "parameters": {
            "type": "object",
            "properties": {"to": {"type": "string"}, "amount_cents": {"type": "integer"}, "my note": {}},
            "required": ["to", "amount_cents"],
        },
    },
}


async def chat(agent: httpx.AsyncClient, content: str, *tools: dict[str, Any]) -> dict[str, Any]:
    body = {"model": "demo", "messages": [{"role": "user", "content": content}], "tools": list(tools)}
    answer = await agent.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


async def test_a_tool_that_was_denied_as_undeclared_goes_by_its_manifest_once_it_is_adopted(shell: Shell) -> None:
    agent = await shell.running.agent()
    before = await chat(agent, "What is the balance?", BALANCE, TRANSFER)
    assert "tool_calls" not in before
    assert "No manifest declares the tool get_balance." in before["content"]

    listed = (await shell("tools", "seen", "--agent", "reader")).out
    assert listed.splitlines()[0].split() == ["AGENT", "TOOL", "COUNT", "LAST", "SEEN", "DESCRIPTION"]
    assert "Moves money." in listed
    draft = shell.running.folder / "tools_registry" / "reader.yaml"
    wrote = await shell("tools", "adopt", "--agent", "reader", "--out", str(draft))
    assert wrote.out == f"Wrote {draft}: 2 tools. Review each guess, then gateway check.\n"
    assert (await shell("check")).out.splitlines()[-1].startswith("ok: ")
    assert "In force" in (await shell("reload")).out

    after = await chat(agent, "What is the balance?", BALANCE, TRANSFER)
    assert [one["function"]["name"] for one in after["tool_calls"]] == ["get_balance"]
    decided = (await shell("audit", "query", "--kind", "tool.propose", "--json")).json
    assert decided[0]["decision"]["rules"] == ["read_allowed"]
    assert decided[0]["action"]["server"] == "reader"
    assert (await shell("tools", "seen", "--json")).json == []
    none = await shell("tools", "adopt", "--agent", "reader", exit_code=1)
    assert "was not seen to declare a tool that no manifest describes" in none.err
    async with shell.running.operator() as operator:
        shown = (await operator.get("/api/v1/tools")).json()
        assert [(one["id"], one["effect"], one["risk"]) for one in shown] == [
            ("reader__get_balance", "read", "medium"),
            ("reader__transfer", "write", "high"),
        ]


async def test_a_write_that_was_adopted_waits_for_a_person(shell: Shell) -> None:
    agent = await shell.running.agent()
    await chat(agent, "Hello", TRANSFER)
    draft = await shell("tools", "adopt", "--agent", "reader")
    (shell.running.folder / "tools_registry" / "reader.yaml").write_text(draft.out)
    config = shell.running.folder / "gateway.yaml"
    config.write_text(f"{config.read_text()}approvals: {{hold_s: 0.05}}\n")
    await shell("reload")
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Pay 25 USD to acme-gmbh"}],
        "tools": [TRANSFER],
    }
    answer = await agent.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "approval_required")
    (case,) = (await shell("approvals", "list", "--json")).json
    assert "Call transfer with to acme-gmbh, amount_cents 2500" in json.dumps(case)


async def test_the_draft_is_printed_as_it_stands_or_told_to_machines(shell: Shell, tmp_path: Path) -> None:
    agent = await shell.running.agent()
    await chat(agent, "Hello", BALANCE, TRANSFER)
    printed = (await shell("tools", "adopt", "--agent", "reader", "--tool", "transfer", "--server", "desk")).out
    made = yaml.safe_load(printed)
    assert (made["server"], made["owner"], list(made["tools"])) == ("desk", "dana", ["transfer"])
    told = (await shell("tools", "adopt", "--agent", "reader", "--owner", "rita", "--json")).json
    assert (told["server"], told["file"]) == ("reader", None)
    assert yaml.safe_load(told["manifest"])["owner"] == "rita"
    assert [(one["id"], one["effect"]) for one in told["tools"]] == [
        ("reader__get_balance", "read"),
        ("reader__transfer", "write"),
    ]
    assert told["tools"][1]["left_out"] == ["my note"]
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "desk.yaml").write_text(printed)
    assert read_registry(tmp_path / "registry", {})[1] == []


async def test_wrong_usage_is_told_apart_from_nothing_seen(shell: Shell) -> None:
    agent, other = await shell.running.agent(), await shell.running.agent("writer")
    nothing = await shell("tools", "adopt", "--agent", "reader", exit_code=1)
    assert "let it make a model call through the gateway, with its tools" in nothing.err
    assert "No agent was seen" in (await shell("tools", "seen")).out
    assert "no agent 'ghost'" in (await shell("tools", "adopt", "--agent", "ghost", exit_code=1)).err
    await chat(agent, "Hello", BALANCE)
    await chat(other, "Hello", BALANCE)
    wrong = await shell("tools", "adopt", "--agent", "reader", "--tool", "paint", exit_code=1)
    assert "was not seen to declare paint" in wrong.err
    assert "--agent" in (await shell("tools", "adopt", exit_code=2)).err
    assert (
        "can't be a manifest's name"
        in (await shell("tools", "adopt", "--agent", "reader", "--server", "A__b", exit_code=2)).err
    )
    assert "--owner" in (await shell("tools", "adopt", "--agent", "writer", exit_code=2)).err
    assert "owner: " in (await shell("tools", "adopt", "--agent", "writer", "--owner", "dana")).out
    there = shell.running.folder / "there.yaml"
    there.write_text("mine")
    refused = await shell("tools", "adopt", "--agent", "reader", "--out", str(there), exit_code=2)
    assert "is there already" in refused.err
    assert there.read_text() == "mine"
    nowhere = await shell("tools", "adopt", "--agent", "reader", "--out", "no/such/folder.yaml", exit_code=2)
    assert "can't be written" in nowhere.err


async def test_a_name_that_is_taken_is_not_given_twice(shell: Shell) -> None:
    agent = await shell.running.agent()
    await chat(agent, "Hello", BALANCE)
    registry = shell.running.folder / "tools_registry"
    (registry / "a.yaml").write_text("version: 1\nserver: reader\nkind: client\nowner: dana\ntools: {}\n")
    await shell("reload")
    taken = await shell("tools", "adopt", "--agent", "reader", "--server", "reader", exit_code=2)
    assert "There is a manifest 'reader' already" in taken.err
    draft = (await shell("tools", "adopt", "--agent", "reader")).out
    assert "server: reader-2\n" in draft
    (registry / "b.yaml").write_text(draft)
    assert (await shell("check")).out.splitlines()[-1].startswith("ok: ")


async def test_an_agents_words_move_neither_the_terminal_nor_the_draft(shell: Shell) -> None:
    words = '\x1b[2J\u202e"\nenabled: false\n# '
    hostile = {"type": "function", "function": {"name": "look", "description": words, "parameters": {words: 1}}}
    agent = await shell.running.agent()
    await chat(agent, "Hello", hostile)
    unnameable = {"type": "function", "function": {"name": f"x{words}", "description": ""}}
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "tools": [unnameable]}
    refused = await agent.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools[0].function.name")
    for command in (["tools", "seen"], ["tools", "adopt", "--agent", "reader"]):
        out = (await shell(*command)).out
        assert "\x1b" not in out
        assert "\u202e" not in out
    made = yaml.safe_load((await shell("tools", "adopt", "--agent", "reader")).out)
    assert set(made) == {"version", "server", "kind", "title", "owner", "tools"}
    assert list(made["tools"]) == ["look"]
    only = await shell("tools", "adopt", "--agent", "reader", "--tool", f"x{words}", exit_code=1)
    assert "was not seen to declare" in only.err
    assert "\x1b" not in only.err
