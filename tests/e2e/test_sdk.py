"""The unmodified current `openai` and `mcp` SDKs against the whole gateway, in an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cases import open_case
from tests.e2e.fixtures import House
from tests.e2e.gateway_process import ROOT
from tests.e2e.upstream import Exchange, Play, call, chunk, completion, usage

PYTHON = ROOT / ".venv-sdk" / "bin" / "python"


@pytest.fixture(autouse=True, scope="module")
def sdk() -> None:
    if not PYTHON.exists():
        why = "the current SDKs are not installed: make .venv-sdk/.made"
        if os.environ.get("GATEWAY_TEST_STRICT") == "1":
            pytest.fail(why)
        pytest.skip(why)


def run(script: str, *arguments: str, given: str = "") -> Any:
    command = [str(PYTHON), str(Path(__file__).parent / script), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ended(house: House, *requests: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """How the SDK's calls end: (key, body) each."""
    asked = [
        {"key": key, "body": {"messages": [{"role": "user", "content": "Hello"}], **body}} for key, body in requests
    ]
    seen: list[dict[str, Any]] = run("sdk_errors.py", house.gateway.url, given=json.dumps(asked))
    return seen


def story(prefix: str) -> list[dict[str, Any] | None]:
    """What the model proposes, turn by turn: a read, a small transfer, a denied payee, a large transfer, an end."""

    def pay(to: str, amount_cents: int) -> dict[str, Any]:
        return call(f"{prefix}transfer", {"to": to, "amount_cents": amount_cents, "reference": "sdk"})

    return [
        call(f"{prefix}get_balance", {}),
        pay("acme-gmbh", 2_500),
        pay("eve", 100),
        pay("acme-gmbh", 50_000),
        call("ledger__close_account", {}),
        None,
    ]


def teller(prefix: str) -> Any:
    """Plays the model, whole or streamed."""
    turns = story(prefix)

    def player(exchange: Exchange, _: Play) -> None:
        request = exchange.received.body
        turn = turns[sum(message["role"] == "assistant" for message in request["messages"])]
        if not request.get("stream"):
            exchange.answer(completion("done" if turn is None else None, calls=[turn] if turn else None))
            return
        exchange.begin()
        exchange.event(chunk({"role": "assistant", "content": None if turn else ""}))
        if turn is None:
            exchange.event(chunk({"content": "done"}))
        else:
            name, arguments = turn["function"]["name"], turn["function"]["arguments"]
            first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
            exchange.event(chunk({"tool_calls": [first]}))
            for at in range(0, len(arguments), 5):  # no event holds a whole word of the arguments
                piece = {"index": 0, "function": {"arguments": arguments[at : at + 5]}}
                exchange.event(chunk({"tool_calls": [piece]}))
        exchange.event(chunk({}, finish="tool_calls" if turn else "stop"))
        exchange.event(chunk(None, usage=usage(10, 5)))
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    return player


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("path", ["/mcp/ledger", "/mcp"])
def test_the_tool_loop_of_the_official_sdks_is_governed_and_on_the_trail(house: House, path: str, how: str) -> None:
    agent = house.agent("sdk")
    prefix = "ledger__" if path == "/mcp" else ""
    play = house.upstream.plays(teller(prefix))
    before = house.ledger.transfers("sdk")

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, "sdk_agent.py", house.gateway.url, agent.key, play.word, path, how)
        open_case(agent).approve()  # the large transfer waits for a person, and the SDK for the transfer
        seen = running.result()

    ours = [f"{prefix}get_balance", f"{prefix}list_payees", f"{prefix}transfer"]
    assert seen["listed"] == sorted([*ours, "gateway__approval_status"])
    balance, small, large = seen["tools"]
    assert balance["data"]["balance_cents"] > 0
    assert small["data"]["transfer_id"].startswith("tr-")
    assert large["data"]["transfer_id"].startswith("tr-")
    read, paid, denied, escalated, closed, last = seen["turns"]
    assert [turn["finish"] for turn in (read, paid, escalated)] == ["tool_calls"] * 3
    for refused in (denied, closed):
        assert (refused["finish"], refused["calls"]) == ("stop", [])
        assert "was not executed" in refused["content"]
    assert "acme-gmbh" in denied["content"]  # what would pass
    assert last["content"] == "done"
    assert seen["denied"]["is_error"]
    assert "acme-gmbh" in seen["denied"]["text"]
    assert f"Unknown tool: {prefix}close_account" in seen["closed"]["error"]
    assert f"Unknown tool: {prefix}close_acount" in seen["invented"]["error"]
    assert house.ledger.transfers("sdk") == before + 2
    # The trail lists all of it.
    results = agent.results(9)
    assert [(r["action"]["kind"], r["result"]["status"]) for r in results].count(("model.invoke", "succeeded")) == 6
    called = [r["action"]["tool"] for r in results if r["action"]["kind"] == "tool.call"]
    assert called == ["get_balance", "transfer", "transfer"]
    proposed = [r for r in agent.records() if r["action"]["kind"] == "tool.propose"]
    assert [(r["type"], r["decision"]["effect"]) for r in proposed] == [
        ("action.decided", "allow"),
        ("action.decided", "allow"),
        ("action.refused", "deny"),
        ("action.decided", "escalate"),
        ("action.refused", "deny"),
    ]
    models = {r["action"]["id"] for r in results if r["action"]["kind"] == "model.invoke"}
    assert {r["refs"]["parent"] for r in proposed} <= models
    refused_calls = [r for r in agent.records("action.refused") if r["action"]["kind"] == "tool.call"]
    assert [r["result"]["code"] for r in refused_calls] == [
        "denied_by_policy",
        "unknown_tool",
        "unknown_tool",
    ]
    house.gateway.verified()


def test_the_sdk_raises_what_its_users_expect(house: House) -> None:
    agent, poor, busy = house.agent(), house.gateway.agent("penniless"), house.gateway.agent("two-a-minute")
    overloaded = house.upstream.answers({"error": {"message": "Too long."}}, status=400)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("nobody's-key", {"model": "up"}),
        (agent.key, {"model": "no-such-model"}),
        (agent.key, {"model": "up", "max_tokens": "many"}),
        (agent.key, {"model": "up", "messages": [{"role": "user", "content": overloaded.word}]}),
        (poor.key, {"model": "up"}),
        (agent.key, {"model": "up-away"}),
    ]
    seen = ended(house, *asked)
    assert [(one["type"], one["status"], one["code"]) for one in seen] == [
        ("AuthenticationError", 401, "unauthenticated"),
        ("NotFoundError", 404, "model_not_found"),
        ("BadRequestError", 400, "malformed"),
        ("BadRequestError", 400, "upstream_failed"),
        ("APIStatusError", 402, "budget_exhausted"),
        ("InternalServerError", 502, "upstream_failed"),
    ]
    for one in seen:
        assert set(one["body"]) >= {"message", "type", "param", "code"}
        assert one["request_id"]
    assert seen[4]["headers"]["x-should-retry"] == "false"
    assert len(poor.refusals(1)) == 1  # so the SDK did not try again
    assert len(overloaded.received) == 1
    assert len(agent.results(4)) == 4  # a 502 is tried again, twice
    assert [one["type"] for one in ended(house, *[(busy.key, {"model": "up"})] * 2)] == ["answer", "answer"]
    limited = busy.chat("Hello")
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 61


def test_the_sdk_says_permission_denied_to_a_suspended_agent(house: House) -> None:
    agent = house.agent()
    suspended = house.gateway.operator("POST", f"/agents/{agent.name}/suspend", {"reason": "test"})
    assert suspended.status_code == 200
    (seen,) = ended(house, (agent.key, {"model": "up"}))
    assert (seen["type"], seen["status"], seen["code"]) == ("PermissionDeniedError", 403, "agent_suspended")
    assert len(agent.refusals(1)) == 1


def test_raw_responses_carry_the_ids_that_stand_in_the_record(house: House) -> None:
    agent = house.agent()
    whole, streamed = ended(house, (agent.key, {"model": "demo"}), (agent.key, {"model": "demo", "stream": True}))
    for seen in (whole, streamed):
        assert seen["type"] == "answer"
        assert seen["text"]
        assert seen["headers"]["x-gateway-decision"] == "allow"
        assert seen["headers"]["x-request-id"] == seen["headers"]["request-id"] == seen["request_id"]
    by_action = {record["action"]["id"]: record for record in agent.results(2)}
    for seen in (whole, streamed):
        assert by_action[seen["headers"]["x-gateway-action"]]["trace"]["request"] == seen["request_id"]


def test_a_stream_that_breaks_off_raises_in_the_sdk(house: House) -> None:
    agent = house.agent()
    broken = house.upstream.streams(chunk({"content": "Half"}), {"error": {"message": "overloaded"}}, done=False)
    (seen,) = ended(
        house, (agent.key, {"model": "up", "stream": True, "messages": [{"role": "user", "content": broken.word}]})
    )
    assert seen["type"] == "APIError"
    assert seen["code"] == "upstream_failed"
    (result,) = agent.results(1)
    assert result["result"]["status"] == "failed"
    assert result["cost"]["estimated"]
