from __future__ import annotations

import asyncio

import pytest

from gateway.approvals.case import Choice
from gateway.identity import Role

from ..bank_house import LARGE, Bank

API = "/api/v1/approvals"


async def test_a_reviewer_sees_what_is_asked_why_it_was_held_and_that_they_looked_is_on_record(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        (line,) = (await rita.get(API, params={"status": "open"})).json()
        assert (line["id"], line["state"], line["agent"]) == (case_id, "pending", "reader")
        assert line["quorum"] == [{"approve": 1, "deny": 1, "group": None, "approved": 0, "denied": 0}]
        answer = await rita.get(f"{API}/{case_id}")
        shown = answer.json()
    assert answer.headers["etag"] == f'"{shown["version"]}"'
    assert shown["sentence"] == "Transfer 900.00 USD to acme-gmbh"
    assert shown["arguments"] == shown["card"]["arguments"] == LARGE
    assert shown["rules"] == ["ledger_large_transfer"]
    assert "need a person's approval" in shown["reasons"][0]
    assert shown["may_decide"] == {"ok": True, "why": ""}
    reads = [record["labels"] for record in await bank.running.events("audit.read")]
    assert {"subject.case": case_id} in reads
    assert {"subject.approvals": '{"status":"open"}'} in reads


async def test_an_approved_call_runs_once_and_the_agent_fetches_its_result(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        (waiting,) = (await agent.get("/api/v1/me")).json()["waiting"]
        assert (waiting["id"], waiting["target"], waiting["state"]) == (case_id, "ledger__transfer", "pending")
        path = f"/api/v1/actions/{waiting['action']}"
        before = (await agent.get(path)).json()
        assert (before["status"], before["case"]["state"], before["result"]) == (None, "pending", None)
        waits = asyncio.create_task(agent.get(path, params={"wait": 25}))
        shown = (await rita.get(f"{API}/{case_id}")).json()
        vote = {"decision": "approve", "presented_digest": shown["presented_digest"], "reason": "invoice 9"}
        voted = await rita.post(f"{API}/{case_id}/reviews", json=vote, headers={"if-match": '"1"'})
        assert (voted.status_code, voted.json()["state"]) == (200, "approved")
        ended = (await waits).json()
        assert (ended["status"], ended["case"]["state"]) == ("succeeded", "succeeded")
        assert ended["result"]["structuredContent"]["balance_cents"] == 910_000
        assert ended["rules"] == ["ledger_large_transfer"]
        again = await bank.transfer(agent)
        assert again.json()["result"]["structuredContent"] == ended["result"]["structuredContent"]
        assert (await agent.get("/api/v1/me")).json()["waiting"] == []
        by_case = (await agent.get(f"/api/v1/actions/{case_id}")).json()
        assert by_case["result"] == ended["result"]
        whole = (await rita.get(f"{API}/{case_id}")).json()
        assert [(one["person"], one["choice"], one["reason"]) for one in whole["votes"]] == [
            ("rita", "approve", "invoice 9")
        ]
        assert [one["outcome"] for one in whole["attempts"]] == ["succeeded"]
    assert bank.transfers() == 1


async def test_guidance_of_a_denial_reaches_the_agent(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        digest = (await rita.get(f"{API}/{case_id}")).json()["presented_digest"]
        vote = {"decision": "deny", "presented_digest": digest, "guidance": "Pay in two parts."}
        assert (await rita.post(f"{API}/{case_id}/reviews", json=vote)).json()["state"] == "denied"
        told = (await agent.get(f"/api/v1/actions/{case_id}")).json()
        assert (told["status"], told["code"]) == ("denied", "approval_denied")
        assert "Pay in two parts." in told["guidance"]
    assert bank.transfers() == 0


async def test_a_vote_on_another_card_or_version_is_stale_and_a_second_one_comes_too_late(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita, await bank.reviewer("rob") as rob:
        case_id = await bank.case(agent)
        path = f"{API}/{case_id}/reviews"
        digest = (await rita.get(f"{API}/{case_id}")).json()["presented_digest"]
        vote = {"decision": "approve", "presented_digest": digest}
        other = {**vote, "presented_digest": f"sha256:{'0' * 64}"}
        for body, headers, status, code in (
            (other, {}, 409, "stale"),
            (vote, {"if-match": '"7"'}, 409, "stale"),
            (vote, {"if-match": "seven"}, 400, "malformed"),
            ({**vote, "decision": "maybe"}, {}, 400, "malformed"),
            ({**vote, "edited": {}}, {}, 400, "malformed"),
            (vote, {}, 200, None),
        ):
            answer = await rita.post(path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        late = await rob.post(path, json={**vote, "decision": "deny", "guidance": "No."})
        assert (late.status_code, late.json()["code"]) == (409, "decided")


async def test_owners_and_people_without_the_role_do_not_decide_and_the_attempt_is_on_record(bank: Bank) -> None:
    operator = bank.running.operator()
    async with (
        operator,
        await bank.running.agent() as agent,
        await bank.reviewer("dana") as dana,
        await bank.reviewer("alex", Role.AUDITOR) as alex,
        await bank.reviewer("opal", Role.OPERATOR) as opal,
    ):
        case_id = await bank.case(agent)
        shown = (await alex.get(f"{API}/{case_id}")).json()
        assert shown["may_decide"] == {"ok": False, "why": "You are not a reviewer."}
        assert not (await dana.get(f"{API}/{case_id}")).json()["may_decide"]["ok"]
        vote = {"decision": "approve", "presented_digest": shown["presented_digest"]}
        refused = await dana.post(f"{API}/{case_id}/reviews", json=vote)
        assert (refused.status_code, refused.json()["code"]) == (403, "separation_of_duties")
        for browser in (alex, opal):
            assert (await browser.post(f"{API}/{case_id}/reviews", json=vote)).json()["code"] == "forbidden"
        assert (await alex.post(f"{API}/{case_id}/cancel", json={})).json()["code"] == "forbidden"
        assert (await alex.post(f"{API}/{case_id}/comments", json={"text": "x"})).json()["code"] == "forbidden"
        assert (await opal.get(API)).json()["code"] == "forbidden"
        cancelled = await opal.post(f"{API}/{case_id}/cancel", json={"why": "Paid by hand."})
        assert cancelled.json()["state"] == "cancelled"
        assert "sentence" not in cancelled.json()
        assert (await opal.post(f"{API}/{case_id}/cancel", json={})).json()["code"] == "decided"
    refusals = [
        (one["actor"]["user"], one["labels"].get("code")) for one in await bank.running.events("person.refused")
    ]
    assert ("dana", "separation_of_duties") in refusals
    assert {who for who, _ in refusals} == {"dana", "alex", "opal"}


async def test_the_same_key_and_body_get_the_same_answer_again(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        path = f"{API}/{case_id}/reviews"
        digest = (await rita.get(f"{API}/{case_id}")).json()["presented_digest"]
        vote, key = {"decision": "approve", "presented_digest": digest}, {"idempotency-key": "k-1"}
        answers = await asyncio.gather(*(rita.post(path, json=vote, headers=key) for _ in range(3)))
        answers.append(await rita.post(path, json=vote, headers=key))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1
        assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [False, True, True, True]
        other = await rita.post(path, json={**vote, "decision": "deny", "guidance": "No."}, headers=key)
        assert (other.status_code, other.json()["code"]) == (409, "conflict")
        assert (await rita.post(path, json=vote)).json()["code"] == "decided"
        assert len((await rita.get(f"{API}/{case_id}")).json()["votes"]) == 1


async def test_people_comment_and_see_cases_that_are_alike(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        first = await bank.case(agent)
        second = await bank.case(agent, reference="INV-10")
        said = await rita.post(f"{API}/{first}/comments", json={"text": "I ask the supplier."})
        assert said.status_code == 201
        assert (await rita.post(f"{API}/{first}/comments", json={"text": " "})).json()["code"] == "malformed"
        shown = (await rita.get(f"{API}/{first}")).json()
        assert [(one["person"], one["text"]) for one in shown["comments"]] == [("rita", "I ask the supplier.")]
        assert [one["id"] for one in shown["like"]] == [second]
        assert "supplier" not in (await agent.get(f"/api/v1/actions/{first}")).text


async def test_lists_are_filtered_and_paged(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        cases = [await bank.case(agent, reference=f"INV-{number}") for number in range(3)]
        page = await rita.get(API, params={"limit": 2, "agent": "reader", "tool": "ledger__transfer", "risk": "high"})
        assert [one["id"] for one in page.json()] == cases[:0:-1]
        rest = await rita.get(API, params={"limit": 2, "cursor": page.headers["x-gateway-next-cursor"]})
        assert [one["id"] for one in rest.json()] == cases[:1]
        assert (await rita.get(API, params={"rule": "no_such_rule"})).json() == []
        assert (await rita.get(API, params={"status": "odd"})).json()["code"] == "malformed"
        assert (await rita.get(f"{API}/nothing")).json()["code"] == "not_found"


async def test_an_agent_takes_its_own_case_back_and_no_other(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.running.agent("writer") as other:
        case_id = await bank.case(agent)
        action = (await agent.get("/api/v1/me")).json()["waiting"][0]["action"]
        assert (await other.get("/api/v1/me")).json()["waiting"] == []
        for wanted in (case_id, action):
            assert (await other.get(f"/api/v1/actions/{wanted}")).json()["code"] == "not_found"
            assert (await other.post(f"/api/v1/actions/{wanted}/cancel")).json()["code"] == "not_found"
        taken = (await agent.post(f"/api/v1/actions/{action}/cancel")).json()
        assert (taken["status"], taken["case"]["state"]) == ("cancelled", "cancelled")
        assert (await agent.post(f"/api/v1/actions/{action}/cancel")).json()["code"] == "decided"
        assert await bank.case(agent) != case_id


@pytest.mark.parametrize("user", ["uma", None])
async def test_cases_belong_to_the_agent_and_its_user(bank: Bank, user: str | None) -> None:
    async with await bank.running.agent() as plain, await bank.running.agent(user=user) as same:
        case_id = await bank.case(plain)
        expected = [case_id] if user is None else []
        assert [one["id"] for one in (await same.get("/api/v1/me")).json()["waiting"]] == expected


async def test_status_counts_cases(bank: Bank) -> None:
    async with await bank.running.agent() as agent, bank.running.operator() as operator:
        await bank.case(agent)
        assert (await operator.get("/api/v1/status")).json()["approvals"] == {"pending": 1, "unknown": 0}


async def test_an_unknown_outcome_is_reconciled_by_a_reviewer(bank: Bank) -> None:
    room = bank.running.app.approvals
    room.on_approved = lambda case: None  # approved, begun, and then the process that carried it out died
    async with await bank.running.agent() as agent, await bank.reviewer("opal") as opal:
        case_id = await bank.case(agent)
        await bank.running.app.registry.people.add("rita", name="Rita", roles=[Role.REVIEWER], by="operator")
        case = await room.case(case_id)
        case = await room.vote(case_id, "rita", Choice.APPROVE, presented_digest=case.presented_digest)
        await bank.running.app.writer.write(room.begin(case, case.requirement))
        await room.tick()
        async with bank.running.operator() as operator:
            assert (await operator.get("/api/v1/status")).json()["approvals"] == {"pending": 0, "unknown": 1}
        told = (await agent.get(f"/api/v1/actions/{case_id}")).json()
        assert (told["status"], told["code"], told["result"]) == ("unknown", "outcome_unknown", None)
        path = f"{API}/{case_id}/reconcile"
        assert (await opal.post(path, json={"outcome": "failed", "note": ""})).json()["code"] == "malformed"
        found = await opal.post(path, json={"outcome": "failed", "note": "The ledger has no such entry."})
        assert (found.status_code, found.json()["state"]) == (200, "failed")
        told = (await agent.get(f"/api/v1/actions/{case_id}")).json()
        assert told["status"] == "failed"
        assert "no such entry" in told["guidance"]
