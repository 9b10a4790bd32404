"""Holds what was answered under a load against what others know: the ledger, the provider, the database, the trail."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psycopg

from gateway.quickstart.topology import Topology
from tests.chaos.house import BUDGET_NANOUSD, CALL_NANOUSD, House
from tests.chaos.load import HELD, LARGE_CENTS, Load, person

SETTLED_S = 40.0
# Of what a replica held when it died, as much may be booked as spent: its reservations are an upper bound.
LEAST_SHARE = 0.8
_TRANSFER = "transfer"
# 402: the budget is small. 409: come back for what waits.
_EXPECTED = {"200", "402", "409", "503", "504", HELD}
# What the balancer makes of a gateway that ended before its answer began, or in the middle of it.
_CUT = {"502", "RemoteProtocolError"}
Row = tuple[Any, ...]


async def judge(house: House, load: Load, *, cuts: bool) -> None:
    """`cuts`: a gateway was ended in the middle of what it answered."""
    claims = load.claims
    assert set(claims.statuses) <= _EXPECTED | (_CUT if cuts else set()), claims
    assert not claims.unadvised, claims.unadvised[:3]
    assert cuts or not claims.cut, claims
    await settled(house.topology, load)
    records = _records(house.topology, load.agent)
    _nothing_overspent(house, load)
    unknown = _one_result_each(house.topology, load, records)
    _nothing_twice(house.topology, load, records)
    _nothing_unapproved(house.topology, load)
    await _people_find_out(house.topology, load, unknown)
    await asyncio.to_thread(_verify, house.topology)


async def settled(topology: Topology, load: Load) -> None:
    """Until nothing is in flight and nothing waits for people."""
    async with asyncio.timeout(SETTLED_S):
        while True:
            try:
                waiting = await load.approve_all(topology.gateways[0])
            except httpx.HTTPError:
                waiting = 1
            row = _ask(
                topology,
                b"SELECT (SELECT count(*) FROM open_intent), (SELECT count(*) FROM ingest),"
                b" (SELECT count(*) FROM approval_case WHERE state IN ('pending', 'approved', 'executing'))",
            )[0]
            if not waiting and row == (0, 0, 0):
                return
            await asyncio.sleep(0.2)


# ---------------------------------------------------------------- the judgements


def _nothing_overspent(house: House, load: Load) -> None:
    """What the provider billed is booked, and what is booked is within the budget, and uses it."""
    spent = _ask(
        house.topology,
        b'SELECT coalesce(sum(nanousd), 0) FROM spend WHERE level = %s AND "window" LIKE \'day:%%\' GROUP BY "window"',
        f"agent:{load.agent}",
    )
    assert max(nanousd for (nanousd,) in spent) <= BUDGET_NANOUSD
    total = sum(nanousd for (nanousd,) in spent)
    assert house.provider.billed(load.agent) <= total
    if load.claims.statuses["402"]:
        assert total + 2 * CALL_NANOUSD >= LEAST_SHARE * BUDGET_NANOUSD, "what was reserved was not given back"


def _one_result_each(topology: Topology, load: Load, records: list[dict[str, Any]]) -> list[str]:
    """Every intent has exactly one result, every acknowledged action too; transfers that ended unknown."""
    intents = {one["id"]: one for one in records if one["type"] == "action.intent"}
    results = [one for one in records if one["type"] == "action.result"]
    ends = Counter(one["refs"]["intent"] for one in results)
    assert max(ends.values()) == 1
    assert set(ends) == set(intents)
    ended = Counter(one["action"]["id"] for one in results if one["result"]["status"] != "cancelled")
    assert all(ended[action] == 1 for action in load.claims.acknowledged), "acknowledged, and not on record once"
    return [
        one["action"]["id"]
        for one in results
        if one["result"]["status"] == "unknown" and one["action"]["tool"] == _TRANSFER
    ]


def _nothing_twice(topology: Topology, load: Load, records: list[dict[str, Any]]) -> None:
    """The ledger's own rows: each reference at most once, what was answered as paid is paid, what is paid is told."""
    made = _made(topology, load.agent)
    assert max(made.values()) == 1
    assert load.claims.paid <= set(made), "answered as paid, and it was not"
    assert set(made) <= set(load.claims.asked)
    told = Counter(
        one["result"]["status"]
        for one in records
        if one["type"] == "action.result" and one["action"]["tool"] == _TRANSFER
    )
    assert told["succeeded"] <= len(made) <= told["succeeded"] + told["unknown"], told


def _nothing_unapproved(topology: Topology, load: Load) -> None:
    """Every large transfer that was made has a case with a person's vote on what they were shown."""
    large = sum(load.claims.asked[reference] == LARGE_CENTS for reference in _made(topology, load.agent))
    voted = b"""
        SELECT count(*) FROM approval_case AS asked WHERE agent = %s AND state IN ('succeeded', 'unknown')
        AND EXISTS (SELECT 1 FROM case_vote WHERE case_id = asked.id AND choice = 'approve'
                    AND presented_digest = asked.presented_digest)
    """
    ((approved,),) = _ask(topology, voted, load.agent)
    assert large <= approved


async def _people_find_out(topology: Topology, load: Load, unknown: list[str]) -> None:
    """Every transfer whose end nobody knows is a case, which a person ends with what the ledger says."""
    made = set(_made(topology, load.agent))
    async with person(topology.gateways[0]) as client:
        found = await client.get("/approvals", params={"status": "unknown", "agent": load.agent, "limit": 200})
        cases = {case["action"]: case for case in found.raise_for_status().json()}
        assert set(unknown) <= set(cases), "nobody will ever find out what became of it"
        for case in cases.values():
            shown = (await client.get(f"/approvals/{case['id']}")).raise_for_status().json()
            outcome = "succeeded" if shown["arguments"]["reference"] in made else "failed"
            end = {"outcome": outcome, "note": "looked up in the ledger"}
            (await client.post(f"/approvals/{case['id']}/reconcile", json=end)).raise_for_status()


def _verify(topology: Topology) -> None:
    command = [sys.executable, "-P", "-m", "gateway.cli", "audit", "verify"]
    verified = subprocess.run(
        [*command, "--data-dir", str(topology.gateways[0].folder)],
        env=os.environ | topology.footing,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.startswith("operator-signed")


# ---------------------------------------------------------------- what others know


def _records(topology: Topology, agent: str) -> list[dict[str, Any]]:
    rows = _ask(
        topology,
        b"SELECT leaf.id, convert_from(body, 'UTF8') FROM leaf JOIN record_view ON record_view.id = leaf.id"
        b" WHERE agent = %s ORDER BY leaf.idx",
        agent,
    )
    return [{**json.loads(body), "id": leaf_id} for leaf_id, body in rows]


def _made(topology: Topology, agent: str) -> Counter[str]:
    """References of the ledger's transfers, each with how often it was made."""
    return _transfers(topology.folder / "ledger.db", f"{agent}-")


def _transfers(file: Path, prefix: str) -> Counter[str]:
    ledger = sqlite3.connect(file)
    try:
        rows = ledger.execute("SELECT reference FROM transfers").fetchall()
    finally:
        ledger.close()
    return Counter(reference for (reference,) in rows if reference.startswith(prefix))


def _ask(topology: Topology, statement: bytes, *values: str) -> list[Row]:
    with psycopg.connect(topology.postgres.url) as database:
        return database.execute(statement, values or None).fetchall()
