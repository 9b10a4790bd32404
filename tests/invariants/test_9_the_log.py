"""Invariant 9, over the whole gateway: a payload can be erased without breaking the log, and the log can't be edited,
truncated or rolled back without `verify` saying so. The single kinds of tampering stand in tests/audit."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

from gateway.audit.check import verify_data_dir
from tests.e2e.fixtures import MakesHouse
from tests.e2e.gateway_process import ROOT, Gateway


def filled(make_house: MakesHouse) -> Gateway:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    agent = gateway.agent("writer")
    for _ in range(5):
        assert agent.chat("Hello").status_code == 200
    agent.results(5)
    return gateway


def test_a_payload_that_vanished_without_a_record_of_its_erasure_is_told(make_house: MakesHouse) -> None:
    gateway = filled(make_house)
    intent = gateway.leaves("writer", "action.intent")[0]
    answer = gateway.operator("GET", f"/audit/records/{intent['id']}?disclose=true")
    assert any("Hello" in json.dumps(payload) for payload in answer.json()["payloads"])
    with closing(sqlite3.connect(gateway.data_dir / "gateway.db")) as database:
        database.execute("DELETE FROM payload_key WHERE leaf_id = ?", (intent["id"],))
        database.commit()
    shown = gateway.operator("GET", f"/audit/records/{intent['id']}?disclose=true")
    assert "Hello" not in shown.text
    assert gateway.stop() == 0
    report = verify_data_dir(gateway.data_dir)
    assert report.verdict == "invalid"
    assert [finding.code for finding in report.findings] == ["payload_missing"]


def test_a_log_that_was_edited_or_rolled_back_is_told_and_the_gateway_does_not_start_on_it(
    make_house: MakesHouse,
) -> None:
    gateway = filled(make_house)
    older = gateway.folder / "older.db"
    assert gateway.stop() == 0
    database = gateway.data_dir / "gateway.db"
    shutil.copy(database, older)
    gateway.start()
    gateway.agent("writer").chat("One more.")
    assert gateway.stop() == 0
    gateway.verified()
    for wal in gateway.data_dir.glob("gateway.db-*"):
        wal.unlink()
    shutil.copy(older, database)
    assert verify_data_dir(gateway.data_dir).verdict == "invalid"
    gateway.launch()
    assert gateway.wait_ended() == 1
    assert any("not as it was signed" in line for line in gateway.lines), gateway.lines
    command = [sys.executable, "-c", "from gateway.cli import main; main()", "audit", "verify"]
    verify = subprocess.run(
        [*command, "--data-dir", str(gateway.data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert verify.returncode == 1
    assert "invalid" in verify.stdout + verify.stderr
