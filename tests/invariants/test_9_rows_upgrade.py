"""An upgrade to authenticated rows ends no session, vote or key, and turns nothing that was forged before into a row of
the gateway's.

The data is made by the gateway's own code, without what the version before did not write: names of sessions and the
mark of authenticated rows in the records, and in the database the columns and tables of migrations 0007 and 0008.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.app import App
from gateway.approvals.case import Choice
from gateway.audit import log as embedded_log
from gateway.audit import shared as shared_log
from gateway.commands.running import migrate_shared
from gateway.commands.shared import CommandError
from gateway.errors import Refusal
from gateway.identity import Role, people
from gateway.store.macs import COVERED
from tests.bank_house import Bank
from tests.footing import IS_SHARED, placed_and_signed
from tests.gateway_house import Running, use_link
from tests.intruder import Intruder
from tests.invariants.counter import Counter
from tests.invariants.test_9_rows import again, faults, found, is_let_in, is_served

COUNTERS = {"agent": "change_no", "person": "change_no", "approval_case": "votes"}
MALLORY = {"id": "mallory", "tenant": "default", "name": "M", "roles": '["operator"]', "groups": "[]", "created_ns": 1}


@pytest.fixture(autouse=True)
def _writes_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (embedded_log, shared_log):
        monkeypatch.setattr(module, "SEALED", {})
    monkeypatch.setattr(people, "_named", lambda hashed: "")
    monkeypatch.setattr(people, "makers_of", lambda person, by, origin: ())


@pytest.fixture
def intruder(running: Running) -> Intruder:
    return Intruder(running.app.process)


async def to_the_version_before(running: Running, intruder: Intruder) -> None:
    """Stop the gateway, and leave of the database what the version before would have left."""
    await placed_and_signed(running.app.log)
    await running.app.stop(1)
    for table in COVERED.keys() - {"recorded"}:
        intruder.run(f"ALTER TABLE {table} DROP COLUMN mac")
    for table, covered in COVERED.items():
        for column in covered.columns[len(covered.columns) - covered.later :]:
            intruder.run(f"ALTER TABLE {table} DROP COLUMN {column}")
    for table, column in COUNTERS.items():
        intruder.run(f"ALTER TABLE {table} DROP COLUMN {column}")
    for table in ("recorded", "unsealed"):
        intruder.run(f"DROP TABLE {table}")
    intruder.run("UPDATE alembic_version SET version_num = '0006'")


async def upgraded(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the version of now on it."""
    monkeypatch.undo()
    monkeypatch.setenv("LEDGER_URL", "http://127.0.0.1:9/mcp")
    monkeypatch.setenv("LEDGER_TOKEN", "not-asked-for")
    if IS_SHARED:
        assert await asyncio.to_thread(migrate_shared, running.app.process)
    running.app = App(running.app.process)
    await running.app.start()


async def test_an_upgrade_keeps_sessions_votes_keys_and_spend(
    bank: Bank, rita: httpx.AsyncClient, intruder: Intruder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, counter = bank.running, Counter(bank)
    await counter.configure()
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    _, secret = await running.app.registry.keys.create("reader", person="operator")
    agent = running.client(secret)
    case = await bank.case(agent)
    assert await counter.approve(rita, case) == "pending"
    await rita.post(f"/api/v1/approvals/{case}/comments", json={"text": "Looks right."})
    gone = await running.person("rob", Role.REVIEWER)
    cookies = [next(iter(browser.cookies.values())) for browser in (rita, gone)]
    await running.app.registry.people.sign_out(cookies[1])
    link, _ = await running.app.registry.people.make_link("rob", by="operator")
    token, _ = await running.app.registry.people.make_token("rita", by="operator")
    await running.ask(agent)
    await running.all_events("action.result", 1)
    spent = intruder.rows("spend")
    await to_the_version_before(running, intruder)
    await upgraded(running, monkeypatch)

    assert await faults(running) == ""
    assert [await is_let_in(running, cookie) for cookie in cookies] == [True, False]
    assert await is_let_in(running, token)
    async with running.client(secret) as agent:
        assert await is_served(agent)
    approvals = running.app.approvals
    assert [vote.person for vote in await approvals.votes(case)] == ["rita"]
    assert [comment.text for comment in await approvals.comments(case)] == ["Looks right."]
    async with running.client() as browser:  # the link still works, and once
        statuses = [(await use_link(browser, link)).status_code for _ in range(2)]
    assert statuses == [303, 401]
    await running.app.registry.people.add("ruth", name="Ruth", roles=[Role.REVIEWER], by="operator")
    shown = await approvals.case(case)
    voted = await approvals.vote(case, "ruth", Choice.APPROVE, presented_digest=shown.presented_digest)
    assert voted.state == "approved"
    assert {(row["level"], row["window"]) for row in spent} <= {
        (row["level"], row["window"]) for row in intruder.rows("spend", "mac IS NOT NULL")
    }
    await placed_and_signed(running.app.log)
    assert found(running) == set()
    await again(running)
    assert await faults(running) == ""
    assert await is_let_in(running, cookies[0])


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE person SET roles = '[\"operator\"]' WHERE id = 'rita'", "person"),
        ("UPDATE approval_case SET state = 'approved'", "approval_case"),
        ("UPDATE agent_key SET revoked_ns = NULL", "agent_key"),
        ("UPDATE console_session SET revoked_ns = NULL", "console_session"),
        ("UPDATE agent SET status = 'active'", "agent"),
        ("UPDATE case_vote SET person = 'rob'", "case_vote"),
        ("UPDATE spend SET nanousd = 0, tokens = 0", "spend"),
    ],
)
async def test_what_was_forged_before_the_upgrade_is_not_sealed_and_is_reported(
    bank: Bank,
    rita: httpx.AsyncClient,
    intruder: Intruder,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    table: str,
) -> None:
    running, counter = bank.running, Counter(bank)
    registry = running.app.registry
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    async with await running.agent() as agent:
        case = await bank.case(agent)
        assert await counter.approve(rita, case) == "pending"
        await running.ask(agent)
        await running.all_events("action.result", 1)
    for key in registry.keys.of("reader"):
        await registry.keys.revoke("reader", key.id, person="operator")
    await registry.people.sign_out(next(iter(rita.cookies.values())))
    await registry.agents.suspend("reader", person="operator", reason="")
    await to_the_version_before(running, intruder)
    intruder.run(statement)
    await upgraded(running, monkeypatch)
    if table == "agent":  # the configuration declares it again, with what the log knows of it
        assert intruder.rows("agent", "id = 'reader'")[0]["status"] == "suspended"
    else:
        assert intruder.rows(table, "mac IS NULL"), "the forged row got no code"
    if table in ("approval_case", "case_vote"):
        with pytest.raises(Refusal, match="were not written by this gateway"):
            await running.app.approvals.votes(case)
    await placed_and_signed(running.app.log)
    if table == "agent":
        assert "table agent, row reader" in await faults(running)
    else:
        assert found(running)


async def test_rows_are_sealed_once_whatever_the_database_asks_for(running: Running, intruder: Intruder) -> None:
    """Once records say that rows are authenticated, a database that looks like one of the version before is none."""
    await running.app.stop(1)
    for module in (embedded_log, shared_log):
        module.SEALED["rows"] = "sealed"
    try:
        running.app = App(running.app.process)
        await running.app.start()
        await to_the_version_before(running, intruder)
        intruder.insert("person", MALLORY)
        if IS_SHARED:
            await asyncio.to_thread(migrate_shared, running.app.process)
        running.app = App(running.app.process)
        await running.app.start()
    finally:
        for module in (embedded_log, shared_log):
            module.SEALED.clear()
    assert "mallory" not in [person.id for person in running.app.registry.people.all()]
    assert "table person, row mallory" in await faults(running)


@pytest.mark.skipif(not IS_SHARED, reason="one gateway is migrated by its own start")
async def test_replicas_of_the_version_before_are_stopped_before_the_migration(
    running: Running, intruder: Intruder
) -> None:
    intruder.run("UPDATE alembic_version SET version_num = '0006'")
    try:
        with pytest.raises(CommandError, match="stop all of them"):
            await asyncio.to_thread(migrate_shared, running.app.process)
    finally:
        intruder.run("UPDATE alembic_version SET version_num = '0007'")
