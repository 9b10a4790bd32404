"""The quickstart's ledger: what it answers, what it truly did, and how it fails when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.catalog import read_registry
from gateway.quickstart.account import TOOLS, Declined, Ledger
from tests.upstreams.tool_world import World, http

ROOT = Path(__file__).parents[2]


class Running:
    def __init__(self, db: Path, url: str, process: asyncio.subprocess.Process) -> None:
        self.db = db
        self.url = url
        self.process = process

    def transfers(self) -> list[tuple[str, int]]:
        """What truly happened."""
        with contextlib.closing(sqlite3.connect(self.db)) as connection:
            return connection.execute("SELECT payee, amount_cents FROM transfers ORDER BY id").fetchall()


@contextlib.asynccontextmanager
async def running(folder: Path, *words: str, token: str = "") -> AsyncIterator[Running]:
    db = folder / "ledger.db"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.quickstart.ledger", "--db", str(db), "--until-stdin-closes", *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "LEDGER_TOKEN": token},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        ready = json.loads(await process.stdout.readline())
        assert ready["ready"] is True
        yield Running(db, ready["url"], process)
    finally:
        process.stdin.close()
        async with asyncio.timeout(10):
            await process.wait()


async def test_its_tools_answer_in_structure_and_in_text_as_promised(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger, World() as world:
        await world.connect(http(ledger.url))
        assert world.names() == ["get_balance", "list_payees", "transfer", "close_account"]
        steps: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            ("get_balance", {}, {"balance_cents": 1_000_000}),
            (
                "transfer",
                {"to": "acme-gmbh", "amount_cents": 2500, "reference": "INV-1"},
                {"transfer_id": "tr-1", "balance_cents": 997_500},
            ),
            ("get_balance", {}, {"balance_cents": 997_500}),
            ("close_account", {}, {"closed": True}),
        ]
        for tool, arguments, wanted in steps:
            result = await world.call(tool, **arguments)
            assert result["structuredContent"] == wanted
            assert json.loads(result["content"][0]["text"]) == wanted
        payees = (await world.call("list_payees"))["structuredContent"]["payees"]
        assert {"id": "acme-gmbh", "name": "Acme GmbH"} in payees
        assert [payee["id"] for payee in payees] == ["acme-gmbh", "city-utilities", "north-supplies"]
        assert ledger.transfers() == [("acme-gmbh", 2500)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": "acme-gmbh", "amount_cents": 0},
        {"to": "acme-gmbh", "amount_cents": -1},
        {"to": "acme-gmbh", "amount_cents": 1_000_001},
        {"to": "acme-gmbh", "amount_cents": True},
        {"to": "acme-gmbh", "amount_cents": "1"},
        {"to": "acme-gmbh", "amount_cents": 1.5},
        {"to": "", "amount_cents": 1},
        {"amount_cents": 1},
        {"to": "x" * 200, "amount_cents": 1},
        {"to": "acme-gmbh", "amount_cents": 1, "reference": 7},
        {"to": "acme-gmbh", "amount_cents": 10**30},
    ],
)
def test_a_transfer_that_makes_no_sense_is_declined_and_leaves_no_trace(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    ledger = Ledger(tmp_path / "l.db")
    with pytest.raises(Declined):
        ledger.transfer(**arguments)
    assert ledger.get_balance() == {"balance_cents": 1_000_000}
    assert ledger.transfer("mallory", 1)["balance_cents"] == 999_999, "who may be paid is not the ledger's to say"
    ledger.close()


def test_a_closed_account_pays_nobody(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.db")
    ledger.close_account()
    with pytest.raises(Declined, match="closed"):
        ledger.transfer("acme-gmbh", 1)
    ledger.close()


async def test_a_declined_transfer_is_an_error_result_not_a_protocol_error(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger, World() as world:
        await world.connect(http(ledger.url))
        bad: list[tuple[str, dict[str, Any]]] = [
            ("transfer", {"to": "a", "amount_cents": -1}),
            ("nope", {}),
            ("get_balance", {"x": 1}),
        ]
        for tool, arguments in bad:
            assert (await world.reply(tool, **arguments)).headers == {"is-error": "true"}


async def test_only_its_own_credential_lets_one_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_TOKEN", "its-own")
    async with running(tmp_path, token="its-own") as ledger, World() as world:
        async with httpx.AsyncClient() as client:
            for headers in ({}, {"authorization": "Bearer agent-key"}):
                assert (await client.post(ledger.url, json={}, headers=headers)).status_code == 401
        await world.connect(http(ledger.url, "env:LEDGER_TOKEN"))
        assert await world.call("get_balance")


async def test_its_money_survives_a_restart(tmp_path: Path) -> None:
    for left in (999_000, 998_000):
        async with running(tmp_path) as ledger, World() as world:
            await world.connect(http(ledger.url))
            found = await world.call("transfer", to="acme-gmbh", amount_cents=1000)
            assert found["structuredContent"]["balance_cents"] == left


@pytest.mark.parametrize(("fault", "done"), [("die-before", 0), ("die-after", 1)])
async def test_told_to_die_it_dies_where_it_was_told(tmp_path: Path, fault: str, done: int) -> None:
    async with running(tmp_path, "--fault", f"{fault}:transfer") as ledger, World() as world:
        await world.connect(http(ledger.url))
        refusal = await world.refused("transfer", to="acme-gmbh", amount_cents=5)
        assert refusal.detail["dispatched"] == "unknown"
        await ledger.process.wait()
        assert len(ledger.transfers()) == done


async def test_told_to_hang_it_has_done_it_all_the_same(tmp_path: Path) -> None:
    async with running(tmp_path, "--fault", "hang-after:transfer") as ledger, World() as world:
        await world.connect(http(ledger.url))
        refusal = await world.refused("transfer", timeout_s=0.5, to="acme-gmbh", amount_cents=5)
        assert refusal.code == "upstream_timeout"
        assert ledger.transfers() == [("acme-gmbh", 5)]


def test_the_manifest_describes_exactly_its_tools_and_arguments() -> None:
    found, _ = read_registry(ROOT / "tools_registry", {"LEDGER_URL": "http://h/mcp", "LEDGER_TOKEN": "t"})
    assert found is not None
    (manifest,) = [one for one in found if one.server == "ledger"]
    assert manifest.tools.keys() == TOOLS.keys()
    for name, tool in manifest.tools.items():
        assert tool.arguments.keys() == TOOLS[name].input_schema["properties"].keys()
        assert set(tool.outputs.trusted) == set((TOOLS[name].output_schema or {})["properties"])
