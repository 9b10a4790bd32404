"""Invariant 5 for outcomes that nobody knows: who may not vote on a case may not say what became of it either.

A party who said that a call of their own agent was not done had it made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.approvals.case import Case, Choice
from gateway.identity import Role
from tests.bank_house import LARGE, Bank
from tests.intruder import Intruder
from tests.invariants.counter import API, PATIENCE_S, Counter, refused
from tests.invariants.test_4_once_without_people import pay

DONE, NOT_DONE = "succeeded", "failed"
GONE = (404, b"{}")  # what the ledger says after it has carried out the call


@pytest.fixture
async def counter(bank: Bank) -> AsyncIterator[Counter]:
    counter = Counter(bank)
    await counter.configure()
    yield counter
    await counter.verified()


async def say(person: httpx.AsyncClient, case_id: str, outcome: str, note: str = "I looked.") -> httpx.Response:
    return await person.post(f"{API}/{case_id}/reconcile", json={"outcome": outcome, "note": note})


async def unknown(counter: Counter, agent: httpx.AsyncClient, *approving: str) -> str:
    """A case that these people approved, and of which nobody knows what became."""
    case_id = await counter.bank.case(agent)
    room = counter.app.approvals
    case: Case = await room.case(case_id)
    for person in approving:
        case = await room.vote(case_id, person, Choice.APPROVE, presented_digest=case.presented_digest)
    assert case.state == "approved"
    counter.bank.lies.answer = GONE
    assert refused(await counter.call(agent))[0] == "outcome_unknown"
    counter.bank.lies.answer = None
    await counter.until(case_id, "unknown")
    return case_id


@pytest.mark.parametrize("outcome", [DONE, NOT_DONE])
async def test_who_may_not_vote_may_not_reconcile_either_and_it_is_on_record(
    counter: Counter, rita: httpx.AsyncClient, outcome: str
) -> None:
    bank = counter.bank
    async with (
        await bank.running.agent(user="uma") as agent,
        await bank.reviewer("dana", Role.OPERATOR, Role.REVIEWER) as dana,  # owns the agent
        await bank.reviewer("uma") as uma,  # it acts for her
        await bank.reviewer("opal", Role.OPERATOR) as opal,
        await bank.reviewer("alex", Role.AUDITOR) as alex,
    ):
        case_id = await unknown(counter, agent, "rita")
        who = {"dana": dana, "uma": uma, "opal": opal, "alex": alex}
        answers = {name: await say(person, case_id, outcome) for name, person in who.items()}
        assert {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()} == {
            "dana": (403, "separation_of_duties"),
            "uma": (403, "separation_of_duties"),
            "opal": (403, "forbidden"),
            "alex": (403, "forbidden"),
        }
        async with asyncio.timeout(PATIENCE_S):
            while len(tried := await bank.running.events("person.refused")) < 4:
                await asyncio.sleep(0.01)
        assert {record["actor"]["user"] for record in tried} == set(who)
        shown = await counter.shown(dana, case_id)
        assert (shown["state"], shown["findings"], shown["may_reconcile"]["ok"]) == ("unknown", [], False)
        assert "another reviewer" in shown["may_reconcile"]["why"]
        assert (await counter.shown(rita, case_id))["may_reconcile"] == {"ok": True, "why": ""}
        assert (await say(rita, case_id, outcome)).json()["state"] == outcome
        record = await counter.last(case_id, "case.reconciled")
        assert (record["actor"]["user"], record["labels"]["outcome"]) == ("rita", outcome)


async def test_a_call_that_needed_nobody_needs_one_who_is_no_party(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    bank = counter.bank
    bank.lies.answer = GONE
    await pay(bank, agent)
    bank.lies.answer = None
    (case,) = (await counter.app.approvals.find(status="unknown")).cases
    async with await bank.reviewer("dana") as dana:
        assert (await say(dana, case.id, NOT_DONE)).json()["code"] == "separation_of_duties"
    assert (await say(rita, case.id, DONE)).json()["state"] == DONE


async def test_as_many_must_find_the_same_as_had_to_approve(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    case_id = await unknown(counter, agent, "rita", "rob")
    async with await counter.bank.reviewer("ruth") as ruth:
        first = (await say(rita, case_id, NOT_DONE, "Not in the ledger.")).json()
        assert (first["state"], first["findings_needed"]) == ("unknown", 2)
        again = await say(rita, case_id, NOT_DONE)
        assert (again.status_code, again.json()["code"]) == (409, "decided")
        assert (await say(rob, case_id, DONE, "I see it.")).json()["state"] == "unknown"  # they contradict each other
        # She looks again and changes her mind; what she said before stays on record and counts no more.
        ended = (await say(rita, case_id, DONE, "It came late.")).json()
        assert ended["state"] == DONE
        assert [(one["person"], one["outcome"], one["counts"]) for one in ended["findings"]] == [
            ("rita", NOT_DONE, False),
            ("rob", DONE, True),
            ("rita", DONE, True),
        ]
        assert (await say(ruth, case_id, NOT_DONE)).json()["code"] == "decided"
    went = [(one["type"], one["labels"].get("outcome")) for one in await counter.records(case_id)]
    assert went[-3:] == [("case.found", NOT_DONE), ("case.found", DONE), ("case.reconciled", DONE)]


async def test_a_role_that_was_taken_away_counts_no_more_and_a_restart_forgets_nothing(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    case_id = await unknown(counter, agent, "rita", "rob")
    await say(rita, case_id, NOT_DONE)
    await counter.people.update("rita", by="operator", roles=[Role.AUDITOR])
    assert (await say(rob, case_id, NOT_DONE)).json()["state"] == "unknown"
    await counter.people.update("rita", by="operator", roles=[Role.REVIEWER])
    # Nobody has counted since: one who says the same once more has it counted.
    assert (await say(rob, case_id, NOT_DONE)).json()["state"] == NOT_DONE


async def test_what_was_not_done_is_decided_anew_and_the_old_vote_revives_nothing(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    case_id = await unknown(counter, agent, "rita")
    paid = counter.bank.transfers()
    assert (await say(rob, case_id, NOT_DONE, "Not in the ledger.")).json()["state"] == NOT_DONE
    assert refused(await counter.call(agent))[0] == "approval_required"  # a new case, which nobody has voted on
    (again,) = (await counter.app.approvals.find(status="pending")).cases
    assert (again.id != case_id, again.votes, again.action.arguments) == (True, 0, LARGE)
    assert refused(await counter.call(agent))[0] == "approval_required"
    assert counter.bank.transfers() == paid
    assert "Not in the ledger." in (await counter.status(agent, case_id))["guidance"]
    assert await counter.approve(rita, again.id) == "approved"
    assert "result" in await counter.call(agent)
    assert counter.bank.transfers() == paid + 1


async def test_what_was_done_is_told_to_an_identical_call(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    case_id = await unknown(counter, agent, "rita")
    paid = counter.bank.transfers()
    await say(rita, case_id, DONE, "The ledger has it.")
    code, words = refused(await counter.call(agent))
    assert (code, "The ledger has it." in words) == ("decided", True)
    assert counter.bank.transfers() == paid


async def test_groups_of_the_quorum_reconcile_too(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks('{"quorum": [{"group": "treasury"}], "execute_on": "claim"}')
    await counter.people.update("rita", by="operator", groups=["treasury"])
    case_id = await unknown(counter, agent, "rita")
    said = await say(rob, case_id, DONE)
    assert (said.status_code, said.json()["code"]) == (403, "forbidden")
    assert "treasury" in said.json()["detail"]
    assert (await say(rita, case_id, DONE)).json()["state"] == DONE


async def test_an_older_state_of_the_row_that_lacks_a_finding_is_not_believed(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    case_id = await unknown(counter, agent, "rita", "rob")
    await say(rita, case_id, NOT_DONE)
    intruder = Intruder(counter.bank.running.app.process)
    (old,) = intruder.rows("approval_case", "id = ?", case_id)
    await say(rita, case_id, DONE)
    (now,) = intruder.rows("approval_case", "id = ?", case_id)
    intruder.put_back("approval_case", old)
    answer = await say(rob, case_id, NOT_DONE)
    assert answer.json()["code"] == "store_unavailable"
    intruder.put_back("approval_case", now)
