"""Invariant 2 and the promise behind `append`: kill -9, a disk that is full, and what the next start makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway.actions import Reservation
from gateway.audit import AuditLog
from gateway.audit.check import verify_data_dir
from gateway.audit.view import Filter
from gateway.store import Writer
from tests.audit.house import ORIGIN, House

ROOT = Path(gateway.__file__).parents[1]


def run(house: House, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.audit.appender", arguments[0], str(house.data_dir), *arguments[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment)


def records(page: Any) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(type, action id) -> records."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in page:
        if record["action"] is not None:
            found.setdefault((record["type"], record["action"]["id"]), []).append(record)
    return found


async def everything(log: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await log.query(Filter(limit=1000, cursor=cursor))
        found += page.records
        cursor = page.cursor
        if cursor is None:
            return found[::-1]


async def test_kill_9_under_64_awaiters_loses_nothing_acknowledged_and_ends_every_intent(house: House) -> None:
    acknowledged: list[str] = []
    for _ in range(2):
        process = run(house, "kill")
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):
            acknowledged.append(line.decode().strip())
            if count == 1500:
                process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        report = verify_data_dir(house.data_dir)
        assert not report.findings
    async with house.log() as log:
        found = records(await everything(log))
        types = [line.split() for line in acknowledged if " " in line]
        for kind, action_id in types:
            assert len(found[f"action.{kind}", action_id]) == 1
        for type_, action_id in list(found):
            if type_ == "action.intent":
                assert len(found["action.result", action_id]) == 1
    report = verify_data_dir(house.data_dir)
    assert report.verdict == "operator-signed"
    assert report.interrupted == 0


async def test_the_reaper_settles_the_reserved_cost_in_the_same_transaction(house: House) -> None:
    process = run(house, "intents")
    process.communicate(timeout=30)
    report = verify_data_dir(house.data_dir)
    assert not report.findings
    assert (report.in_flight, report.interrupted) == (0, 5)
    assert any("its next start records them as unknown" in note for note in report.notes)
    settled: list[Reservation] = []
    writer = Writer.open(house.data_dir)
    log = AuditLog.open(house.data_dir, writer, origin=ORIGIN)

    def settle(connection: Any, reservation: Reservation, _: str) -> None:
        assert connection.in_transaction
        settled.append(reservation)

    await log.start(settle)
    reaped = [record for record in await everything(log) if record["labels"].get("reaper")]
    assert {record["action"]["id"] for record in reaped} == {reservation.id for reservation in settled}
    assert len(reaped) == 5
    for record in reaped:
        assert record["result"]["status"] == "unknown"
        assert record["result"]["code"] == "gateway_restarted"
        assert record["cost"] == {"estimated": True, "usd": "0.01"}
        assert record["actor"]["agent"] == "reader"
    await log.stop()
    await writer.close()
    assert verify_data_dir(house.data_dir).ok


@pytest.mark.parametrize("abrupt", [False, True])
async def test_a_full_disk_latches_and_the_next_start_tells_how_many_were_refused(house: House, abrupt: bool) -> None:
    process = run(house, "full", *(["abrupt"] if abrupt else []))
    output = process.communicate(timeout=60)[0].decode().splitlines()
    assert process.returncode == (-signal.SIGKILL if abrupt else 0)
    refused = output.count("refused audit_unavailable")
    assert refused == 70
    assert any(line.startswith("latched the database said") for line in output)
    async with house.log() as log:
        trail = await everything(log)
        found = records(trail)
        for kind, action_id in (line.split() for line in output if line.startswith(("intent ", "result "))):
            assert len(found[f"action.{kind}", action_id]) == 1
        for type_, action_id in list(found):
            if type_ == "action.intent":
                assert len(found["action.result", action_id]) == 1
        (gap,) = [record for record in trail if record["type"] == "audit.gap"]
        assert int(gap["labels"]["refused"]) == refused
        assert gap["labels"]["count"] == ("at least" if abrupt else "exact")
        starts = [record["labels"]["previous"] for record in trail if record["type"] == "gateway.start"]
        assert starts == ["none", "latched"]
    assert verify_data_dir(house.data_dir).ok
    async with house.log() as log:
        trail = await everything(log)
        assert len([record for record in trail if record["type"] == "audit.gap"]) == 1
        assert trail[-1]["labels"]["previous"] == "clean"
