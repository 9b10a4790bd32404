"""Invariant 13: what policy hides cannot be told from what does not exist, on any surface."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from gateway.documents import errors
from tests.bank_house import Bank

HIDDEN_TOOL, ABSENT_TOOL = "get_balance", "got_balance"
HIDDEN_MODEL, ABSENT_MODEL = "quiet-model", "other-model"
RULE = """package gateway

deny contains {
	"rule": "hidden_rule",
	"reason": "Hidden reason.",
	"note": "Hidden note.",
	"hidden": true,
} if {
	input.target.id in {"ledger__get_balance", "quiet-model"}
}
"""
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z")


def plain(answer: httpx.Response, name: str) -> tuple[int, dict[str, str], str]:
    """An answer with ids, times and the name that was asked for replaced."""

    def neutral(text: str) -> str:
        return _IDS.sub("#", text).replace(name, "NAME")

    headers = {key: neutral(value) for key, value in answer.headers.items() if not key.startswith("x-ratelimit-r")}
    return answer.status_code, {key: value for key, value in headers.items() if key != "date"}, neutral(answer.text)


@pytest.fixture
async def hiding(bank: Bank) -> Bank:
    folder = bank.running.folder
    config = (folder / "gateway.yaml").read_text()
    first = re.search(r"models:\n((?:  .*\n)+)", config)
    assert first is not None
    row = first[1].splitlines()[0].replace("alias: demo", f"alias: {HIDDEN_MODEL}")
    assert HIDDEN_MODEL in row, first[1]
    (folder / "gateway.yaml").write_text(config.replace("models:\n", f"models:\n{row}\n", 1))
    (folder / "policies" / "hidden.rego").write_text(RULE)
    assert errors(await bank.running.app.reload("test")) == []
    return bank


def rpc(tool: str, arguments: Any = None) -> dict[str, Any]:
    params = {"name": tool, "arguments": {} if arguments is None else arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25", "host": "127.0.0.1"}


@pytest.mark.parametrize("arguments", [{}, {"odd": 1}, {"Amount": 1, "amount": 2}])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/ledger"])
async def test_a_hidden_tool_is_answered_as_one_that_does_not_exist(
    hiding: Bank, path: str, arguments: dict[str, Any]
) -> None:
    prefix = "ledger__" if path == "/mcp" else ""
    async with await hiding.running.agent() as agent:
        answers = {}
        for tool in (HIDDEN_TOOL, ABSENT_TOOL):
            name = f"{prefix}{tool}"
            answer = await agent.post(path, json=rpc(name, arguments), headers=MCP)
            answers[tool] = plain(answer, name)
        assert answers[HIDDEN_TOOL] == answers[ABSENT_TOOL]
    assert hiding.lies.calls == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hidden_model_is_answered_as_one_that_does_not_exist(hiding: Bank, stream: bool) -> None:
    async with await hiding.running.agent() as agent:
        answers = []
        for model in (HIDDEN_MODEL, ABSENT_MODEL):
            body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
            answers.append(plain(await agent.post("/v1/chat/completions", json=body), model))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
        shown = [plain(await agent.get(f"/v1/models/{model}"), model) for model in (HIDDEN_MODEL, ABSENT_MODEL)]
        assert shown[0] == shown[1]
        listed = (await agent.get("/v1/models")).text + (await agent.get("/api/v1/me")).text
        assert HIDDEN_MODEL not in listed
        assert HIDDEN_TOOL not in listed


async def test_the_state_of_an_action_says_no_more_than_its_answer_did(hiding: Bank) -> None:
    async with await hiding.running.agent() as agent:
        asked: list[tuple[str, httpx.Response]] = []
        for tool in (HIDDEN_TOOL, ABSENT_TOOL):
            name = f"ledger__{tool}"
            asked.append((name, await agent.post("/mcp", json=rpc(name), headers=MCP)))
        for model in (HIDDEN_MODEL, ABSENT_MODEL):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
            asked.append((model, await agent.post("/v1/chat/completions", json=body)))
        states = []
        for name, answer in asked:
            action = answer.headers["x-gateway-action"]
            states.append(plain(await agent.get(f"/api/v1/actions/{action}?wait=5"), name))
            assert "idden" not in states[-1][2]
        assert states[0] == states[1]
        assert states[2] == states[3]


async def test_metrics_never_name_what_is_hidden(hiding: Bank) -> None:
    async with await hiding.running.agent() as agent, hiding.running.client() as anybody:
        for name in (f"ledger__{HIDDEN_TOOL}", f"ledger__{ABSENT_TOOL}"):
            await agent.post("/mcp", json=rpc(name), headers=MCP)
        for model in (HIDDEN_MODEL, ABSENT_MODEL):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
            await agent.post("/v1/chat/completions", json=body)
        text = (await anybody.get("/metrics")).text
        for name in (HIDDEN_TOOL, ABSENT_TOOL, HIDDEN_MODEL, ABSENT_MODEL, "hidden_rule"):
            assert name not in text
