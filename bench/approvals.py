"""From a person's vote to the waiting agent's answer, while a thousand other cases are open.

usage: python -m bench.approvals [--open N] [--votes N] [--out FILE]

Real parts throughout: a gateway process, the quickstart's ledger behind it, agents that wait at the MCP door over
HTTP, votes through the API. Half of the votes approve (the transfer is made before the agent is answered), half deny.
The clock runs from the moment the vote is sent until the agent holds its whole answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from bench.subject import ROOT

_CONFIG = """
version: 1
environment: dev
providers: {demo: {type: demo}}
models: [{alias: demo, provider: demo, model: demo, price: {input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}]
agents: [{id: demo-agent, team: finance, owners: {business: dana}}]
limits: {default: {requests_per_minute: 1000000, concurrency: 10000}}
tool_registry: tools
policy: {path: policies}
approvals: {hold_s: 600, pending_per_agent: 100000}
"""
BOUND_MS = 100
_CENTS = 10_001  # the least that needs a person; 99 of them fit the ledger's opening balance


@contextlib.contextmanager
def _process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **environment}
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(timeout=30)


def _first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def serve(folder: Path) -> None:
    """The gateway's process: prints its address, an agent key and the operator's token when it is ready."""
    from gateway.app import App
    from gateway.process import Process
    from gateway.serve import serve as serve_gateway

    async def ready(app: App, url: str) -> None:
        while not app.catalog.tools("ledger"):
            await asyncio.sleep(0.05)
        _, key = await app.registry.keys.create("demo-agent", person=None)
        token = (folder / "var" / "operator.token").read_text().strip()
        print(json.dumps({"url": url, "key": key, "token": token}), flush=True)

    process = Process(data_dir=folder / "var", config=folder / "gateway.yaml", port=0, log_level="warning")
    serve_gateway(process, on_ready=ready)


class Agents:
    """Calls that wait; each knows when its answer was there."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str) -> None:
        self._http = http
        self._url = f"{url}/mcp"
        self._headers = {
            "authorization": f"Bearer {key}",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-06-18",
        }

    async def transfer(self, number: int) -> tuple[float, Any]:
        """A transfer that needs a person: when its answer was there, and the answer."""
        arguments = {"to": "acme-gmbh", "amount_cents": _CENTS, "reference": f"bench {number}"}
        message = {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {"name": "ledger__transfer", "arguments": arguments},
        }
        async with self._http.post(self._url, json=message, headers=self._headers) as answer:
            body = await answer.read()
        return time.perf_counter(), json.loads(body)


async def measure(place: dict[str, str], open_cases: int, votes: int) -> dict[str, Any]:
    """Open the cases, vote one after the other, and time each."""
    api = f"{place['url']}/api/v1/approvals"
    person = {"authorization": f"Bearer {place['token']}"}
    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as http:
        agents = Agents(http, place["url"], place["key"])
        total = open_cases + votes
        began = time.perf_counter()
        waiting = [asyncio.create_task(agents.transfer(number)) for number in range(total)]
        cases = await _cases(http, api, person, total)
        opened_s = time.perf_counter() - began
        by_reference = {case["arguments"]["reference"]: case for case in cases}
        took: dict[str, list[float]] = {"approve": [], "deny": []}
        for number in range(votes):
            case = by_reference[f"bench {number}"]
            choice = "approve" if number % 2 else "deny"
            vote = {"decision": choice, "presented_digest": case["presented_digest"], "guidance": "Not now."}
            sent = time.perf_counter()
            async with http.post(f"{api}/{case['id']}/reviews", json=vote, headers=person) as answer:
                assert answer.status == 200, await answer.text()
            there, body = await waiting[number]
            took[choice].append((there - sent) * 1000)
            assert (body["result"].get("isError") is True) == (choice == "deny"), body
        left = sum(not task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return {
        "open_cases": left,
        "opened_per_s": round(total / opened_s),
        **{f"{choice}_ms": _figures(times) for choice, times in took.items()},
    }


async def _cases(http: aiohttp.ClientSession, api: str, person: dict[str, str], total: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < total:
        await asyncio.sleep(0.5)
        found, address = [], f"{api}?status=pending&limit=200"
        while address:
            async with http.get(address, headers=person) as answer:
                found += await answer.json()
                following = answer.links.get("next")
                address = str(following["url"]) if following else ""
    return [await _case(http, api, person, one["id"]) for one in found]


async def _case(http: aiohttp.ClientSession, api: str, person: dict[str, str], case_id: str) -> dict[str, Any]:
    async with http.get(f"{api}/{case_id}", headers=person) as answer:
        case: dict[str, Any] = await answer.json()
        return case


def _figures(times_ms: list[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    return {
        "n": len(ordered),
        "p50": round(statistics.median(ordered), 1),
        "p95": round(ordered[max(0, -(-len(ordered) * 95 // 100) - 1)], 1),
        "max": round(ordered[-1], 1),
    }


def main() -> None:
    """Run it and print the figures."""
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, default=1000)
    parser.add_argument("--votes", type=int, default=180)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "gateway.yaml").write_text(_CONFIG)
        shutil.copytree(ROOT / "policies", folder / "policies")
        (folder / "tools").mkdir()
        shutil.copy(ROOT / "tools_registry" / "ledger.yaml", folder / "tools")
        secret = {"LEDGER_TOKEN": secrets.token_urlsafe(32)}
        started = ["gateway.quickstart.ledger", "--port", "0", "--db", str(folder / "ledger.db")]
        with _process(*started, **secret) as ledger:
            url = json.loads(_first_line(ledger))["url"]
            with _process("bench.approvals", "serve", name, LEDGER_URL=url, **secret) as gateway:
                place = json.loads(_first_line(gateway))
                figures = asyncio.run(measure(place, asked.open, asked.votes))
    text = json.dumps(figures, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")
    slow = [
        f"{choice}: {figures[choice]['p95']} ms"
        for choice in ("approve_ms", "deny_ms")
        if figures[choice]["p95"] > BOUND_MS
    ]
    if slow:
        sys.exit(f"p95 over {BOUND_MS} ms: {', '.join(slow)}")


if __name__ == "__main__":
    main()
