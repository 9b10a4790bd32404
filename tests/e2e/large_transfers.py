"""Transfers that a person must approve, as an agent asks for them, and what is so of them afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx

from tests.e2e.fixtures import House
from tests.e2e.gateway_process import ROOT, Agent, Gateway

AMOUNT_CENTS = 12_000  # above what passes without a person
STRUCTURED = b'"structuredContent"'


def pay(agent: Agent, reference: str) -> httpx.Response:
    """Ask for a transfer that a person must approve; held until the case has ended, or the hold is over."""
    arguments = {"to": "acme-gmbh", "amount_cents": AMOUNT_CENTS, "reference": reference}
    return call(agent, "transfer", arguments)


def call(agent: Agent, name: str, arguments: dict[str, Any]) -> httpx.Response:
    """A tool call; the whole HTTP answer."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    return agent.post("/mcp/ledger", json.dumps(message).encode(), accept="application/json, text/event-stream")


def quietly(agent: Agent, reference: str) -> httpx.Response | None:
    """A transfer whose caller may be left without an answer."""
    try:
        return pay(agent, reference)
    except httpx.HTTPError:
        return None


def told(answer: httpx.Response) -> tuple[str, str]:
    """What a caller who gets no result hears: the code, and the words for its model."""
    result = answer.json()["result"]
    assert result["isError"], result
    return result["_meta"]["gateway/code"], result["content"][0]["text"]


def status(agent: Agent, case: str, wait_s: float = 0) -> dict[str, Any]:
    """What `gateway__approval_status` says."""
    answer = call(agent, "gateway__approval_status", {"case_id": case, "wait_s": wait_s})
    found: dict[str, Any] = answer.json()["result"]["structuredContent"]
    return found


def cli(gateway: Gateway, *arguments: str) -> str:
    """`gateway ...` as an operator types it."""
    command = [sys.executable, "-c", "from gateway.cli import main; main()", *arguments]
    environment = {**gateway.environment, "GATEWAY_DATA_DIR": str(gateway.data_dir)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def books_agree(house: House, agent: Agent, reference: str, *, paid: int, intents: int) -> None:
    """The ledger has at most the one row, every intent has its one end, and the trail verifies."""
    assert house.ledger.transfers(reference) == paid
    assert len(agent.records("action.intent")) == intents
    results = agent.results(intents)
    assert len({result["refs"]["intent"] for result in results}) == intents
    house.gateway.verified()
