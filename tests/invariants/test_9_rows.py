"""Invariant 9, of rows: whoever writes to the database alone approves nothing, lets nobody in and spends nothing again.

Rows are forged with raw SQL under a running gateway, and between two runs of it. `make test-shared` runs the same on
PostgreSQL and Redis.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest

from gateway.app import App
from gateway.approvals.case import Case, State
from gateway.approvals.rows import idempotency_of
from gateway.audit.check import verify
from gateway.documents import errors
from gateway.errors import Refusal
from gateway.identity import Role, tokens
from gateway.identity.console_site import COOKIE
from gateway.limits.windows import names_in
from tests.bank_house import Bank
from tests.footing import placed_and_signed
from tests.gateway_house import CONFIG, Running, use_link
from tests.intruder import Intruder, Row
from tests.invariants.counter import Counter

FAR_NS = 2**62


@pytest.fixture
def intruder(running: Running) -> Intruder:
    return Intruder(running.app.process)


@pytest.fixture
async def other(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """An agent that is not the one that a test is about."""
    async with await running.agent("writer") as agent:
        yield agent


async def faults(running: Running) -> str:
    """What `gateway status` says of rows."""
    async with running.operator() as operator:
        status = (await operator.get("/api/v1/status")).json()
    (rows,) = [part for part in status["components"] if part["id"] == "rows"]
    return rows["reason"] or ""


def found(running: Running) -> set[str]:
    """The codes of what `gateway audit verify` finds."""
    report = verify(running.app.footing.source(), payloads=False, names_in=names_in)
    return {finding.code for finding in report.findings}


async def again(running: Running) -> None:
    """Stop the gateway and start another one on what it left."""
    await running.app.stop(1)
    running.app = App(running.app.process)
    await running.app.start()


async def is_let_in(running: Running, secret: str) -> bool:
    """Whether a cookie's secret or an API token is good."""
    is_token = secret.startswith(tokens.API_TOKEN)
    async with running.client(secret if is_token else None) as client:
        if not is_token:
            client.cookies.set(COOKIE, secret)
        return (await client.get("/api/v1/agents")).status_code != 401


async def is_served(agent: httpx.AsyncClient) -> bool:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
    return (await agent.post("/v1/chat/completions", json=body)).status_code == 200


async def is_refused(bank: Bank, agent: httpx.AsyncClient) -> bool:
    """Whether an identical call is refused because of the rows of its case."""
    try:
        answer = await bank.transfer(agent)
    except AssertionError as error:
        return "were not written by this gateway" in str(error)
    return "were not written by this gateway" in answer.text


# ---------------------------------------------------------------- under a running gateway


async def test_a_forged_vote_does_not_count_and_is_reported(
    bank: Bank, agent: httpx.AsyncClient, rita: httpx.AsyncClient, intruder: Intruder
) -> None:
    running = bank.running
    await Counter(bank).asks('{"quorum": [{"approve": 2}]}')
    await running.person("rob", Role.REVIEWER)
    case = await running.app.approvals.case(await bank.case(agent))
    vote: Row = {"id": "v-1", "case_id": case.id, "person": "rob", "choice": "approve", "reason": "", "guidance": ""}
    intruder.insert("case_vote", vote | {"presented_digest": case.presented_digest, "ts_ns": 1})
    assert await running.app.approvals.votes(case.id) == []
    assert "case_vote, row v-1" in await faults(running)
    # An honest vote still counts; with the forged one it makes no two.
    body = {"decision": "approve", "presented_digest": case.presented_digest}
    answer = await rita.post(f"/api/v1/approvals/{case.id}/reviews", json=body)
    assert answer.json()["state"] == "pending", answer.text
    assert [vote.person for vote in await running.app.approvals.votes(case.id)] == ["rita"]
    await placed_and_signed(running.app.log)
    assert "case_altered" in found(running)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'approved'",
        """requirement = '{"quorum":[],"ttl_s":14400,"execute_on":"claim"}'""",
        "expires_ns = 4611686018427387904",
        "mac = NULL",
    ],
)
async def test_a_changed_case_is_not_obeyed(
    bank: Bank, agent: httpx.AsyncClient, intruder: Intruder, change: str
) -> None:
    case = await bank.case(agent)
    intruder.run(f"UPDATE approval_case SET {change} WHERE id = ?", (case,))
    assert await is_refused(bank, agent)
    await bank.running.app.governor.attempting.resume()
    await bank.running.app.approvals.tick()
    assert bank.transfers() == 0
    assert f"approval_case, row {case}" in await faults(bank.running)


async def test_an_approved_case_that_was_carried_out_is_not_carried_out_again(
    bank: Bank, rita: httpx.AsyncClient, intruder: Intruder
) -> None:
    _, secret = await bank.running.app.registry.keys.create("reader", person="operator")
    case = await bank.running.app.approvals.case(await bank.case(bank.running.client(secret)))
    before = intruder.rows("approval_case", "id = ?", case.id)[0]
    approvals, approved = bank.running.app.approvals, list[Row]()
    carry_out = approvals.on_approved

    def copied_first(case: Case) -> None:
        approved.extend(intruder.rows("approval_case", "id = ?", case.id))
        carry_out(case)

    approvals.on_approved = copied_first
    body = {"decision": "approve", "presented_digest": case.presented_digest}
    await rita.post(f"/api/v1/approvals/{case.id}/reviews", json=body)
    await approvals.wait(case.id, 20, until=frozenset({State.SUCCEEDED}))
    assert [row["state"] for row in approved] == ["approved"]
    for older in (before, *approved):  # each with the code that the gateway gave it then
        intruder.run("DELETE FROM case_attempt WHERE case_id = ?", (case.id,))
        intruder.put_back("approval_case", older)
        assert await is_refused(bank, bank.running.client(secret))
        await bank.running.app.governor.attempting.resume()
        await again(bank.running)
        assert f"approval_case, row {case.id}" in await faults(bank.running)
        assert bank.transfers() == 1


async def test_a_forged_session_link_and_person_let_nobody_in(running: Running, intruder: Intruder) -> None:
    await running.person("rita", Role.REVIEWER)
    session, token, link = "agc_" + "a" * 43, "agt_" + "a" * 43, "ags_" + "b" * 43
    whose: Row = {"person_id": "operator", "expires_ns": FAR_NS}
    intruder.insert("console_session", whose | {"token_sha256": tokens.digest(session), "created_ns": 1})
    intruder.insert("console_session", whose | {"token_sha256": "agt_" + tokens.digest(token), "created_ns": 1})
    intruder.insert("sign_in", whose | {"token_sha256": tokens.digest(link)})
    row = {"id": "mallory", "tenant": "default", "name": "M", "roles": json.dumps(["operator"]), "groups": "[]"}
    intruder.insert("person", row | {"created_ns": 1})
    intruder.run("UPDATE person SET roles = ? WHERE id = 'rita'", (json.dumps(["operator", "reviewer"]),))
    await again(running)
    assert not await is_let_in(running, session)
    assert not await is_let_in(running, token)
    async with running.client() as browser:
        assert (await use_link(browser, link)).status_code == 401
    assert [person.id for person in running.app.registry.people.all()] == ["operator"]
    said = running.app.log.macs.fault or ""
    assert "console_session" in said
    await placed_and_signed(running.app.log)
    assert {"register_altered", "session_altered"} <= found(running)


async def test_a_forged_key_opens_no_door(running: Running, intruder: Intruder) -> None:
    secret = "agw_" + "c" * 43
    row = {"id": "k-1", "tenant": "default", "agent_id": "reader", "created_ns": 1}
    intruder.insert("agent_key", row | {"key_sha256": hashlib.sha256(secret.encode()).hexdigest()})
    await again(running)
    async with running.client(secret) as agent:
        assert not await is_served(agent)
    assert "agent_key, row k-1" in await faults(running)


# ---------------------------------------------------------------- older states, put back between two runs


async def test_what_was_ended_stays_ended_when_its_older_row_is_put_back(running: Running, intruder: Intruder) -> None:
    registry = running.app.registry
    key, secret = await registry.keys.create("reader", person="operator")
    browser = await running.person("rita", Role.REVIEWER)
    cookie = next(iter(browser.cookies.values()))
    token, made = await registry.people.make_token("rita", by="operator")
    assert await is_let_in(running, cookie)
    assert await is_let_in(running, token)
    await running.person("rob", Role.REVIEWER, Role.OPERATOR)
    older = {table: intruder.rows(table) for table in ("agent_key", "console_session", "sign_in", "person", "agent")}
    await registry.keys.revoke("reader", key.id, person="operator")
    await registry.people.sign_out(cookie)
    await registry.people.revoke(made.id, by="operator")
    await registry.people.update("rob", roles=[Role.REVIEWER], by="operator")
    await registry.agents.suspend("writer", person="operator", reason="Odd calls.")
    await running.app.stop(1)
    names = {"console_session": "token_sha256", "sign_in": "token_sha256"}
    for table, rows in older.items():
        for row in rows:
            intruder.put_back(table, row, names.get(table, "id"))
    running.app = App(running.app.process)
    await running.app.start()
    registry = running.app.registry
    async with running.client(secret) as agent:
        assert not await is_served(agent)
    assert not await is_let_in(running, cookie)
    assert not await is_let_in(running, token)
    assert "rob" not in [person.id for person in registry.people.all()]
    suspended = registry.agents.get("writer")
    assert suspended is not None
    assert suspended.status == "suspended"
    assert "agent_key" in await faults(running)


@pytest.mark.parametrize("forgets", [True, False], ids=["all is read anew", "as it was kept"])
async def test_an_older_row_is_not_believed_where_its_record_was_changed_with_it(
    running: Running, intruder: Intruder, *, forgets: bool
) -> None:
    (older,) = intruder.rows("agent", "id = ?", "writer")
    await running.app.registry.agents.suspend("writer", person="operator", reason="Odd calls.")
    await placed_and_signed(running.app.log)
    await running.app.stop(1)
    intruder.put_back("agent", older)
    (record,) = [row for row in intruder.rows("leaf") if b'"agent.suspended"' in row["body"]]
    changed = record["body"].replace(b'"agent.suspended"', b'"agent.suspendex"')
    intruder.run("UPDATE leaf SET body = ? WHERE idx = ?", [changed, record["idx"]])
    app = App(running.app.process)
    if forgets:
        intruder.run("DELETE FROM recorded")
        with pytest.raises(Refusal, match="not as it was signed"):
            await app.start()
        return
    running.app = app
    await app.start()
    found_again = app.registry.agents.get("writer")
    assert found_again is not None
    assert found_again.status == "suspended"


async def test_deleted_rows_lift_no_suspension(running: Running, intruder: Intruder) -> None:
    await running.app.registry.agents.suspend("writer", person="operator", reason="Odd calls.")
    await running.app.stop(1)
    intruder.run("DELETE FROM agent WHERE id = 'writer'")
    running.app = App(running.app.process)
    await running.app.start()
    found_again = running.app.registry.agents.get("writer")
    assert found_again is not None
    assert found_again.status == "suspended"


# ---------------------------------------------------------------- spend


@pytest.mark.parametrize("change", ["UPDATE spend SET nanousd = 0, tokens = 0", "DELETE FROM spend", "put back"])
async def test_lowered_and_deleted_spend_is_still_spent(
    running: Running, other: httpx.AsyncClient, intruder: Intruder, change: str
) -> None:
    limits = '{agents: {writer: {budgets: [{window: day, usd: "1"}, {window: month, usd: "1"}]}}}'
    (running.folder / "gateway.yaml").write_text(f"{CONFIG}limits: {limits}\n")
    assert errors(await running.app.reload("test")) == []
    await running.ask(other)
    await running.all_events("action.result", 1)
    older = intruder.rows("spend")
    await running.ask(other)
    await running.all_events("action.result", 2)
    spent = await left_of(running)
    await running.app.stop(1)
    intruder.empty_redis()  # so that all is counted from the rows again
    if change == "put back":
        intruder.run("DELETE FROM spend")
        for row in older:
            intruder.insert("spend", row)
    else:
        intruder.run(change)
    running.app = App(running.app.process)
    await running.app.start()
    assert await left_of(running) == spent
    assert "table spend" in await faults(running)
    await placed_and_signed(running.app.log)
    assert found(running) & {"spend_altered", "row_altered"}


async def left_of(running: Running) -> list[tuple[str, int]]:
    """What is left of the agent's budgets, as far as replicas have told each other."""
    running.app.limits.remaining("writer")
    await running.app.footing.tick()
    budgets = running.app.limits.remaining("writer")["agent:writer"]["budgets"]
    return [(budget["window"], budget["left_nanousd"]) for budget in budgets]


# ---------------------------------------------------------------- nothing is found where nothing was done


async def test_an_honest_gateway_reports_nothing(
    bank: Bank, agent: httpx.AsyncClient, rita: httpx.AsyncClient, other: httpx.AsyncClient
) -> None:
    running = bank.running
    case = await running.app.approvals.case(await bank.case(agent))
    body = {"decision": "approve", "presented_digest": case.presented_digest}
    await rita.post(f"/api/v1/approvals/{case.id}/reviews", json=body)
    await rita.post(f"/api/v1/approvals/{case.id}/comments", json={"text": "Looks right."})
    await running.ask(other)
    await running.app.registry.keys.rotate("writer", person="operator")
    await running.app.registry.agents.suspend("reader", person="operator", reason="")
    await again(running)
    assert await faults(running) == ""
    await placed_and_signed(running.app.log)
    assert found(running) == set()


# ---------------------------------------------------------------- rows of cases that somebody deleted


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_case_that_was_deleted_lets_no_identical_call_through(
    bank: Bank, rita: httpx.AsyncClient, intruder: Intruder, *, is_restarted: bool
) -> None:
    _, secret = await bank.running.app.registry.keys.create("reader", person="operator")
    case = await bank.case(bank.running.client(secret))
    for table, column in (("case_vote", "case_id"), ("case_attempt", "case_id"), ("approval_case", "id")):
        intruder.run(f"DELETE FROM {table} WHERE {column} = ?", (case,))
    if is_restarted:
        await again(bank.running)
    assert await is_refused(bank, bank.running.client(secret))
    assert f"approval_case, row {case}: it is open on record, and was deleted" in await faults(bank.running)
    other = await bank.transfer(bank.running.client(secret), reference="INV-10")
    assert "Waiting for approval" in other.text, "another call has a case of its own"


async def test_a_forged_attempt_and_a_forged_key_of_a_case_do_not_count(
    bank: Bank, agent: httpx.AsyncClient, rita: httpx.AsyncClient, intruder: Intruder
) -> None:
    running = bank.running
    case = await running.app.approvals.case(await bank.case(agent))
    row: Row = {"case_id": case.id, "fence": 1, "started_ns": 1, "outcome": "failed", "replica": ""}
    intruder.insert("case_attempt", row)
    assert await running.app.approvals.attempts(case.id) == []
    assert f"case_attempt, row {case.id}/1" in await faults(running)
    # It takes the place of the one attempt, so nothing is carried out rather than without its row.
    body = {"decision": "approve", "presented_digest": case.presented_digest}
    await rita.post(f"/api/v1/approvals/{case.id}/reviews", json=body)
    await running.app.governor.attempting.resume()
    assert bank.transfers() == 0
    action = msgspec.structs.replace(case.action, idempotency_key="mine")
    key = idempotency_of(action)
    intruder.insert("case_key", {"idempotency": key, "case_id": case.id})
    room = running.app.approvals
    assert await room._find(msgspec.structs.replace(action, digest="another"), None) is None
    assert "table case_key" in await faults(running)
