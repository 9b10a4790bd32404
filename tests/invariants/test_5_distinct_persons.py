"""Invariant 5, through the whole gateway, and the vote itself: distinct persons with the right to decide, each once, on
exactly what they saw, in time. Who had no right to vote is refused, and that they tried is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.identity import Role
from tests.bank_house import LARGE, Bank
from tests.gateway_house import use_link
from tests.invariants.counter import API, PATIENCE_S, Counter, is_paid, refused

TWO = '{"quorum": [{"approve": 2}]}'


@pytest.fixture
async def counter(bank: Bank) -> AsyncIterator[Counter]:
    counter = Counter(bank)
    await counter.configure("")
    yield counter
    await counter.verified()


# ---------------------------------------------------------------- who


async def test_who_has_a_part_in_it_or_no_right_to_decide_is_refused_and_on_record(
    counter: Counter, rita: httpx.AsyncClient
) -> None:
    bank = counter.bank
    await counter.asks('{"quorum": [{"group": "treasury"}]}')
    async with (
        await bank.running.agent(user="uma") as agent,
        await bank.reviewer("dana") as dana,  # owns the agent
        await bank.reviewer("uma") as uma,  # it acts for her
        await bank.reviewer("alex", Role.AUDITOR) as alex,
    ):
        for person in ("dana", "uma"):
            await counter.people.update(person, by="operator", groups=["treasury"])
        case_id = await bank.case(agent)
        who = {"dana": dana, "uma": uma, "alex": alex, "rita": rita}
        for decision in ("approve", "deny"):  # a right to stop it would be a right to decide it
            answers = {name: await counter.vote(person, case_id, decision) for name, person in who.items()}
            assert {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()} == {
                "dana": (403, "separation_of_duties"),
                "uma": (403, "separation_of_duties"),
                "alex": (403, "forbidden"),
                "rita": (403, "forbidden"),  # a reviewer, but not of the treasury
            }
        shown = await counter.shown(rita, case_id)
        assert (shown["state"], shown["votes"], shown["version"]) == ("pending", [], 1)
        async with asyncio.timeout(PATIENCE_S):  # they ride the next commit
            while len(tried := await bank.running.events("person.refused")) < 8:
                await asyncio.sleep(0.01)
        assert {(record["actor"]["user"], record["labels"].get("code", "no role")) for record in tried} == {
            ("alex", "no role"),
            ("dana", "separation_of_duties"),
            ("rita", "forbidden"),
            ("uma", "separation_of_duties"),
        }
        await counter.people.update("rita", by="operator", groups=["treasury"])
        assert await counter.approve(rita, case_id) == "approved"
        await counter.until(case_id, "succeeded")
    assert bank.transfers() == 1


async def test_a_quorum_counts_persons_not_votes(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    assert await counter.approve(rita, case_id) == "pending"
    # Once more, from another browser of hers, and both at once.
    link, _ = await counter.people.make_link("rita", by="operator")
    async with counter.bank.running.client(origin="http://gateway.test") as other:
        assert (await use_link(other, link)).status_code == 303
        again = await asyncio.gather(*(counter.vote(browser, case_id) for browser in (rita, other, rita, other)))
    assert [answer.json()["code"] for answer in again] == ["decided"] * 4
    shown = await counter.shown(rob, case_id)
    assert (shown["state"], len(shown["votes"]), shown["quorum"][0]["approved"]) == ("pending", 1, 1)
    assert counter.bank.transfers() == 0
    assert await counter.approve(rob, case_id) == "approved"
    await counter.until(case_id, "succeeded")
    voters = [
        (record["type"], record["actor"]["user"])
        for record in await counter.records(case_id)
        if record["type"] in ("case.voted", "case.approved")
    ]
    assert voters == [("case.voted", "rita"), ("case.approved", "rob")]


async def test_who_is_of_two_groups_fills_the_place_of_one(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks('{"quorum": [{"group": "treasury"}, {"group": "risk"}]}')
    await counter.people.update("rita", by="operator", groups=["treasury", "risk"])
    await counter.people.update("rob", by="operator", groups=["treasury"])
    case_id = await counter.bank.case(agent)
    assert await counter.approve(rita, case_id) == "pending"
    assert await counter.approve(rob, case_id) == "approved"  # rob for the treasury, rita for the risk
    await counter.until(case_id, "succeeded")


async def test_one_deny_ends_it_whoever_has_approved(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.configure("", hold_s=PATIENCE_S)
    await counter.asks(TWO)
    call, case_id = await counter.held(agent)
    assert await counter.approve(rita, case_id) == "pending"
    denied = await counter.vote(rob, case_id, "deny", guidance="Pay it in two parts.", reason="I do not know them.")
    assert denied.json()["state"] == "denied"
    code, words = refused(await call)
    assert (code, "Pay it in two parts." in words) == ("approval_denied", True)
    assert "do not know them" not in words
    assert (await counter.vote(rita, case_id)).json()["code"] == "decided"
    assert refused(await counter.call(agent)) == (code, words)  # told again, not asked again
    assert await counter.went(case_id) == ["action.requested", "case.voted", "case.denied"]
    assert counter.bank.transfers() == 0


# ---------------------------------------------------------------- what and when


async def test_a_vote_on_what_is_not_shown_any_more_is_stale_and_counts_for_nothing(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    """Two people look; what one of them saw changes while they think."""
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    case_id = await counter.bank.case(agent)
    seen = await counter.shown(rob, case_id)
    vote = {"decision": "approve", "presented_digest": seen["presented_digest"]}
    await counter.approve(rita, case_id)
    # The same card, but not the case that was seen: somebody has voted since.
    late = await rob.post(f"{API}/{case_id}/reviews", json=vote, headers={"if-match": f'"{seen["version"]}"'})
    assert (late.status_code, late.json()["code"]) == (409, "stale")
    assert (await rob.post(f"{API}/{case_id}/reviews", json=vote)).json()["state"] == "approved"
    await counter.asks('{"quorum": [{"approve": 3}], "execute_on": "claim"}')
    assert refused(await counter.call(agent))[0] == "approval_required"
    async with await counter.bank.reviewer("ruth") as ruth:
        for person in (rob, ruth):
            for decision in ("approve", "deny"):
                stale = await person.post(
                    f"{API}/{case_id}/reviews", json={**vote, "decision": decision, "guidance": "No."}
                )
                assert (stale.status_code, stale.json()["code"]) == (409, "stale")
        shown = await counter.shown(rob, case_id)
        assert (shown["state"], shown["quorum"][0]["approved"]) == ("pending", 0)
        votes = [await counter.approve(person, case_id) for person in (rita, rob, ruth)]
    assert votes == ["pending", "pending", "approved"]
    assert counter.bank.transfers() == 0
    assert is_paid(await counter.call(agent))


async def test_a_vote_that_comes_after_the_time_is_up_is_too_late(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    await counter.asks('{"ttl_s": 1}')
    case_id = await counter.bank.case(agent)
    digest = (await counter.shown(rita, case_id))["presented_digest"]
    await counter.until(case_id, "expired")
    vote = {"decision": "approve", "presented_digest": digest}
    late = await rita.post(f"{API}/{case_id}/reviews", json=vote)
    assert (late.status_code, late.json()["code"]) == (409, "decided")
    code, words = refused(await counter.call(agent))
    assert (code, "Nobody approved it in time." in words) == ("approval_expired", True)
    assert await counter.went(case_id) == ["action.requested", "case.expired"]
    assert counter.bank.transfers() == 0


async def test_what_was_approved_and_not_claimed_in_time_does_not_run_and_says_so(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    await counter.asks('{"ttl_s": 1, "execute_on": "claim"}')
    case_id = await counter.approved(agent, rita)
    await counter.until(case_id, "expired")
    code, words = refused(await counter.call(agent))
    assert (code, "not claimed or begun in time" in words) == ("approval_expired", True)
    assert (await counter.last(case_id, "case.expired"))["labels"]["was"] == "approved"
    assert counter.bank.transfers() == 0


async def test_a_repeated_request_of_a_person_is_one_vote_and_the_same_answer(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks(TWO)
    case_id, path = await counter.bank.case(agent), f"{API}/{{}}/reviews"
    vote = {"decision": "approve", "presented_digest": (await counter.shown(rita, case_id))["presented_digest"]}
    key = {"idempotency-key": "rita-1"}
    wrong = {**vote, "presented_digest": f"sha256:{'0' * 64}"}
    assert (await rita.post(path.format(case_id), json=wrong, headers=key)).json()["code"] == "stale"
    first = await rita.post(path.format(case_id), json=vote, headers=key)  # a refusal has not used the key up
    assert (first.status_code, first.json()["state"]) == (200, "pending")
    # The key is hers: the same words from another person are that person's vote.
    assert (await rob.post(path.format(case_id), json=vote, headers=key)).json()["state"] == "approved"
    await counter.until(case_id, "succeeded")
    again = await rita.post(path.format(case_id), json=vote, headers=key)
    assert (again.text, again.headers["idempotency-replayed"]) == (first.text, "true")
    other = await counter.bank.case(agent, **{**LARGE, "reference": "INV-10"})
    assert (await rita.post(path.format(other), json=vote, headers=key)).json()["code"] == "conflict"
    assert [vote["person"] for vote in (await counter.shown(rita, case_id))["votes"]] == ["rita", "rob"]
    assert counter.bank.transfers() == 1


async def test_who_has_the_group_again_may_complete_what_the_votes_carry(
    counter: Counter, agent: httpx.AsyncClient
) -> None:
    """A quorum that is full while nobody counts it is no dead end: who voted is offered to say so again."""
    bank, people = counter.bank, counter.people
    await counter.asks('{"quorum": [{"approve": 2, "group": "treasury"}]}')
    async with await bank.reviewer("tom") as tom, await bank.reviewer("tina") as tina:
        for person in ("tom", "tina"):
            await people.update(person, by="operator", groups=["treasury"])
        case_id = await bank.case(agent)
        assert await counter.approve(tom, case_id) == "pending"
        assert (await counter.shown(tom, case_id))["may_decide"]["ok"] is False
        await people.update("tom", by="operator", groups=[])
        assert await counter.approve(tina, case_id) == "pending"
        await people.update("tom", by="operator", groups=["treasury"])
        for voter in (tom, tina):
            assert (await counter.shown(voter, case_id))["may_decide"] == {"ok": True, "why": ""}
        assert await counter.approve(tom, case_id) in ("approved", "executing", "succeeded")
    assert len(await counter.app.approvals.votes(case_id)) == 2


async def test_a_denial_without_guidance_is_refused(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    case_id = await counter.bank.case(agent)
    for guidance in ("", "  "):
        denied = await counter.vote(rita, case_id, "deny", guidance=guidance)
        assert (denied.status_code, denied.json()["code"]) == (400, "malformed")
    assert (await counter.shown(rita, case_id))["state"] == "pending"


async def test_a_case_of_somebody_else_and_none_at_all_are_told_in_the_same_words(counter: Counter) -> None:
    async with await counter.bank.running.agent("reader") as one, await counter.bank.running.agent("writer") as other:
        case_id = await counter.bank.case(one)
        asked = (case_id, "0" * 8 + case_id[8:])
        told = [await counter.call(other, "gateway__approval_status", case_id=case) for case in asked]
    assert refused(told[0]) == refused(told[1])
    assert refused(told[0])[0] == "not_found"
