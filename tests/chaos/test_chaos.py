"""The engines and a replica die, stand still and forget, under load: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
import yaml

from gateway.quickstart.opa_server import find as find_opa
from gateway.quickstart.servers import find_postgres, find_redis
from gateway.quickstart.topology import Topology
from tests.chaos.load import Load
from tests.servers import missing

ROOT = Path(__file__).parents[2]
BUDGET_NANOUSD = 60_000_000
SETTLED_S = 40.0
RECOVERED_S = 30.0
Fault = Callable[[Topology], Awaitable[None]]


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    for found, name in ((find_postgres(), "postgresql"), (find_redis(), "redis-server"), (find_opa(), "opa")):
        if found is None:
            missing(f"{name} is not here")
    config = yaml.safe_load((ROOT / "gateway.yaml").read_text())
    config["limits"] = {
        "default": {
            "requests_per_minute": 1_000_000,
            "concurrency": 500,
            "budgets": [{"window": "day", "usd": "0.06"}],
        }
    }
    config["tool_registry"], config["policy"] = str(ROOT / "tools_registry"), {"path": str(ROOT / "policies")}
    config["server"] = {"drain_s": 2}
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    return Topology(tmp_path / "run", config=path)


# ---------------------------------------------------------------- what goes wrong


async def postgres_killed(topology: Topology) -> None:
    await asyncio.to_thread(topology.postgres.kill)
    await asyncio.to_thread(topology.postgres.start)


async def postgres_paused(topology: Topology) -> None:
    topology.postgres.pause()
    await asyncio.sleep(4)
    topology.postgres.resume()


async def redis_killed(topology: Topology) -> None:
    await asyncio.to_thread(topology.redis.kill)
    await asyncio.to_thread(topology.redis.start)


async def redis_paused(topology: Topology) -> None:
    topology.redis.pause()
    await asyncio.sleep(4)
    topology.redis.resume()


async def redis_emptied(topology: Topology) -> None:
    with redis.Redis.from_url(topology.redis.url) as client:
        await asyncio.to_thread(client.flushall)


async def opa_killed(topology: Topology) -> None:
    assert topology.opa is not None
    await asyncio.to_thread(topology.opa.kill)
    await asyncio.to_thread(topology.opa.start)


async def opa_paused(topology: Topology) -> None:
    assert topology.opa is not None
    topology.opa.pause()
    await asyncio.sleep(3)
    topology.opa.resume()


async def replica_killed(topology: Topology) -> None:
    await asyncio.to_thread(topology.gateways[0].kill)
    await asyncio.to_thread(topology.gateways[0].start)


async def replica_paused(topology: Topology) -> None:
    """So long that the other one ends it: then it can make nothing durable, and makes room."""
    paused = topology.gateways[1]
    paused.pause()
    await asyncio.sleep(9)
    paused.resume()
    async with asyncio.timeout(30):
        while paused.runs:
            await asyncio.sleep(0.1)
    await asyncio.to_thread(paused.start)


async def replicas_replaced(topology: Topology) -> None:
    """A rolling restart: each is told to stop, ends what runs, and is there again before the next one goes."""
    for gateway in topology.gateways:
        await asyncio.to_thread(gateway.stop)
        await asyncio.to_thread(gateway.start)


FAULTS: tuple[Fault, ...] = (
    postgres_killed,
    postgres_paused,
    redis_killed,
    redis_paused,
    redis_emptied,
    opa_killed,
    opa_paused,
    replica_killed,
    replica_paused,
)


# ---------------------------------------------------------------- the tests


@pytest.mark.timeout(110)
async def test_a_database_and_a_replica_die_under_load(topology: Topology) -> None:
    await through(topology, (postgres_killed, replica_killed))


@pytest.mark.drill
@pytest.mark.timeout(480)
async def test_whatever_dies_stands_still_or_forgets(topology: Topology, capsys: pytest.CaptureFixture[str]) -> None:
    took = await through(topology, FAULTS)
    with capsys.disabled():
        for fault, (lasted_s, away_s) in took.items():
            print(f"\n  {fault:<18} lasted {lasted_s:4.1f} s, calls failed for {away_s:4.1f} s", end="")


@pytest.mark.drill
@pytest.mark.timeout(240)
async def test_a_rolling_restart_fails_no_request_and_cuts_no_stream(topology: Topology) -> None:
    with topology:
        load = Load(topology, await asyncio.to_thread(key_of, topology), run="rolling")
        load.start()
        await load.recovered(time.monotonic(), RECOVERED_S)
        await replicas_replaced(topology)
        await load.recovered(time.monotonic(), RECOVERED_S)
        await load.stop()
        # 402: the small budget is spent. A held call is told to come back, which is what it does.
        assert set(load.claims.statuses) <= {"200", "402", "409"}, load.claims
        assert load.claims.cut == 0
        assert not load.bad_s
        await judge(topology, load)


async def through(topology: Topology, faults: tuple[Fault, ...]) -> dict[str, tuple[float, float]]:
    """Each fault in turn, under one load: how long it lasted, and how long calls failed."""
    took: dict[str, tuple[float, float]] = {}
    with topology:
        load = Load(topology, await asyncio.to_thread(key_of, topology), run="chaos")
        load.start()
        try:
            await load.recovered(time.monotonic(), RECOVERED_S)
            for fault in faults:
                began_s = time.monotonic()
                await fault(topology)
                took[fault.__name__] = (time.monotonic() - began_s, await load.recovered(began_s, RECOVERED_S))
        finally:
            await load.stop()
        assert load.claims.cut == 0 or replica_killed in faults, load.claims
        await judge(topology, load)
    return took


def key_of(topology: Topology) -> str:
    gateway = topology.gateways[0]
    token = (gateway.folder / "operator.token").read_text().strip()
    made = httpx.post(
        f"{gateway.url}/api/v1/agents/demo-agent/keys",
        json={},
        headers={"authorization": f"Bearer {token}"},
        timeout=30,
        trust_env=False,
    )
    return str(made.raise_for_status().json()["secret"])


async def judge(topology: Topology, load: Load) -> None:
    """Hold what was answered against the ledger's own rows, the spend and the trail."""
    claims = load.claims
    assert not claims.unexpected, claims.unexpected[:3]
    await settled(topology, load)
    # No overspend, and what is booked is what the results say.
    with psycopg.connect(topology.postgres.url) as database:
        row = database.execute(
            b"SELECT coalesce(sum(nanousd), 0) FROM spend WHERE level = 'agent:demo-agent' AND \"window\" LIKE 'day:%'"
        ).fetchone()
        assert row is not None
        assert 0 < row[0] <= BUDGET_NANOUSD
        results = database.execute(b"SELECT action FROM record_view WHERE type = 'action.result'").fetchall()
    # No double execution: the ledger's own rows.
    with sqlite3.connect(topology.folder / "ledger.db") as ledger:
        made = Counter(reference for (reference,) in ledger.execute("SELECT reference FROM transfers"))
    ledger.close()
    assert max(made.values()) == 1
    assert claims.paid <= set(made), "answered as paid, and it was not"
    assert set(made) <= claims.asked
    # No lost record: every acknowledged action has its one result, and the trail verifies.
    ended = Counter(str(action) for (action,) in results)
    assert max(ended.values()) == 1
    assert set(claims.acknowledged) <= set(ended)
    verified = subprocess.run(
        [sys.executable, "-P", "-m", "gateway.cli", "audit", "verify", "--data-dir", str(topology.gateways[0].folder)],
        env=os.environ | topology.footing,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.startswith("operator-signed")


async def settled(topology: Topology, load: Load) -> None:
    """Until nothing is in flight and nothing waits for people."""
    gateway = topology.gateways[0]
    token = (gateway.folder / "operator.token").read_text().strip()
    async with asyncio.timeout(SETTLED_S):
        while True:
            waiting = await load.approve_all(gateway.url, token)
            with psycopg.connect(topology.postgres.url) as database:
                row = database.execute(
                    b"SELECT (SELECT count(*) FROM open_intent), (SELECT count(*) FROM ingest),"
                    b" (SELECT count(*) FROM approval_case WHERE state IN ('pending', 'approved', 'executing'))"
                ).fetchone()
            if not waiting and row == (0, 0, 0):
                return
            await asyncio.sleep(0.2)
