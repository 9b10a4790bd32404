"""Two replicas as one, before a model provider that sends bills: what chaos is let loose on."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.quickstart.opa_server import find as find_opa
from gateway.quickstart.servers import find_postgres, find_redis
from gateway.quickstart.topology import GatewayServer, Topology
from tests.e2e.upstream import Exchange, Play, Upstream, completion, usage, words
from tests.servers import missing

ROOT = Path(__file__).parents[2]
BUDGET_USD = "0.15"
BUDGET_NANOUSD = 150_000_000
_INPUT_TOKENS, _OUTPUT_TOKENS = 10, 50
CALL_NANOUSD = _INPUT_TOKENS * 1_000 + _OUTPUT_TOKENS * 10_000
MODEL = "metered"
_TEAM = "chaos"
_CHUNKS = 10
_CHUNK_S = 0.04
_SAYS_WHO = re.compile(rb"of ([a-z0-9-]+), number ([0-9]+)")


class Provider:
    """A provider of models that takes its time, and remembers whom it billed for what."""

    def __init__(self, upstream: Upstream) -> None:
        self.url = upstream.url
        self._play = upstream.plays(_answer)

    def prompt(self, agent: str, number: int) -> str:
        """What an agent says, so that the bill can name it."""
        return f"{self._play.word} The question of {agent}, number {number}."

    def billed(self, agent: str) -> int:
        """Nano-dollars for all calls of an agent that came here, whether or not anybody got the answer."""
        found = [_SAYS_WHO.search(received.raw) for received in list(self._play.received)]
        calls = [int(match[2]) for match in found if match is not None and match[1].decode() == agent]
        assert len(calls) == len(set(calls)), "a model call came twice"
        return len(calls) * CALL_NANOUSD


def _answer(exchange: Exchange, play: Play) -> None:
    used = usage(_INPUT_TOKENS, _OUTPUT_TOKENS)
    if not exchange.received.body.get("stream"):
        play.go.wait(_CHUNK_S)  # nobody sets it: the model thinks
        exchange.answer(completion("Hello.", used=used))
        return
    exchange.begin()
    for event in words(*["word "] * _CHUNKS, used=used):
        play.go.wait(_CHUNK_S)
        exchange.event(event)
    exchange.send(b"data: [DONE]\n\n")
    exchange.end()


class House:
    """The replicas with all that they stand on, started."""

    def __init__(self, topology: Topology, provider: Provider) -> None:
        self.topology = topology
        self.provider = provider

    def agent(self, name: str) -> str:
        """A new agent, with a small budget of its own: its key."""
        owners = dict.fromkeys(("business", "data", "technology", "risk", "operations"), "dana")
        with operator(self.topology.gateways[0]) as person:
            person.post("/agents", json={"id": name, "team": _TEAM, "owners": owners}).raise_for_status()
            made: dict[str, Any] = person.post(f"/agents/{name}/keys", json={}).raise_for_status().json()
        return str(made["secret"])


def operator(gateway: GatewayServer) -> httpx.Client:
    """A person at one of the replicas. It must run."""
    token = (gateway.folder / "operator.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{gateway.url}/api/v1", headers=headers, timeout=30, trust_env=False)


@contextlib.contextmanager
def house(folder: Path) -> Iterator[House]:
    """Skips, or fails in strict runs, where a server is missing."""
    for found, name in ((find_postgres(), "postgresql"), (find_redis(), "redis-server"), (find_opa(), "opa")):
        if found is None:
            missing(f"{name} is not here")
    with Upstream() as upstream:
        provider = Provider(upstream)
        path = folder / "gateway.yaml"
        path.write_text(yaml.safe_dump(_config(provider, _policies(folder))))
        with Topology(folder / "run", config=path) as topology:
            _fill_account(topology)
            yield House(topology, provider)


def _fill_account(topology: Topology) -> None:
    """No large transfer shall fail for want of money."""
    ledger = sqlite3.connect(topology.folder / "ledger.db")
    try:
        ledger.execute("UPDATE account SET balance_cents = 1000000000")
        ledger.commit()
    finally:
        ledger.close()


def _policies(folder: Path) -> Path:
    """The quickstart's, where all agents of a team are given what its one agent is."""
    policies = folder / "policies"
    shutil.copytree(ROOT / "policies", policies)
    grants: dict[str, Any] = {"teams": {_TEAM: {"models": [MODEL], "servers": {"ledger": {"max_risk": "critical"}}}}}
    (policies / "grants" / "data.yaml").write_text(yaml.safe_dump({"agents": {}, "tiers": {}} | grants))
    return policies


def _config(provider: Provider, policies: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "gateway.yaml").read_text())
    config["providers"] = {"up": {"type": "openai", "base_url": f"{provider.url}/v1", "retries": 0}}
    config["models"] = [
        {
            "alias": MODEL,
            "provider": "up",
            "model": "served",
            "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "10"},
            "max_output_tokens": 2 * _OUTPUT_TOKENS,
        }
    ]
    config["limits"] = {
        "default": {
            "requests_per_minute": 1_000_000,
            "concurrency": 500,
            "budgets": [{"window": "day", "usd": BUDGET_USD}],
        }
    }
    config["tool_registry"], config["policy"] = str(ROOT / "tools_registry"), {"path": str(policies)}
    config["server"] = {"drain_s": 2}
    return config
