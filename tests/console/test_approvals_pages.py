"""The queue, the page of a case and its forms, as a browser without script uses them."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from gateway.actions import Decision, Effect, Kind, ToolTarget
from gateway.approvals.case import Choice, State
from gateway.documents import errors
from gateway.identity import Role

from ..bank_house import LARGE, Bank
from .html import Page, check_page

QUEUE = "/console/approvals"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
UNSEEN = "pay\u202egnp.exe\u200b\u0000"
EMPTY = "Nothing waits for a person."


async def queue(browser: httpx.AsyncClient, **asked: str) -> Page:
    answer = await browser.get(QUEUE, params=asked)
    assert answer.status_code == 200, answer.text
    return check_page(answer, scripted=True)


def listed(page: Page) -> list[str]:
    """The cases of a page of the queue, from the top."""
    return [(row.get("id") or "").removeprefix("case-") for row in page.all("tr") if row.get("id")]


async def look(browser: httpx.AsyncClient, case_id: str) -> Page:
    answer = await browser.get(f"{QUEUE}/{case_id}")
    assert answer.status_code == 200, answer.text
    return check_page(answer, scripted=True)


async def send(browser: httpx.AsyncClient, case_id: str, form: str, **fields: str) -> httpx.Response:
    return await browser.post(f"{QUEUE}/{case_id}/{form}", data=fields)


async def vote(browser: httpx.AsyncClient, case_id: str, decision: str, **typed: str) -> httpx.Response:
    """Load the page, fill in its form, send it."""
    return await send(browser, case_id, "reviews", **(await look(browser, case_id)).fields(decision), **typed)


def forms(page: Page) -> list[str]:
    """What one may send from a page of a case."""
    return [form["aria-label"] or "" for form in page.all("form") if "aria-label" in form]


async def state(bank: Bank, case_id: str) -> State:
    return (await bank.running.app.approvals.case(case_id)).state


async def configure(bank: Bank, settings: str) -> None:
    config = bank.running.folder / "gateway.yaml"
    config.write_text(re.sub(r"approvals: \{.*\}", f"approvals: {{hold_s: 0.05, {settings}}}", config.read_text()))
    assert errors(await bank.running.app.reload("test")) == []


async def ask_two(bank: Bank) -> None:
    """From now on two persons must approve a transfer."""
    rule = (
        '\nescalate contains {"rule": "four_eyes", "reason": "Two must agree.",'
        ' "obligations": [{"approval": {"quorum": [{"approve": 2}]}}]} if {\n\tledger_transfer\n}\n'
    )
    policy = bank.running.folder / "policies" / "ledger" / "ledger.rego"
    policy.write_text(policy.read_text() + rule)
    assert errors(await bank.running.app.reload("test")) == []


async def propose(bank: Bank, agent: httpx.AsyncClient, arguments: dict[str, Any]) -> str:
    """Open a case of a tool that the agent executes itself, and that no manifest declares."""
    app = bank.running.app
    tool = ToolTarget(
        server="shell",
        tool="run",
        server_kind="client",
        owner="dana",
        risk="critical",
        effect="destructive",
        declared=False,
    )
    like = (await app.approvals.case(await bank.case(agent))).action
    change = {"id": app.ids.new(), "kind": Kind.TOOL_PROPOSE, "target": tool.id, "digest": "d", "arguments": arguments}
    action = msgspec.structs.replace(like, **change)
    met = await app.approvals.meet(action, tool, Decision(effect=Effect.ESCALATE, rules=("undeclared",)))
    assert met is not None
    return met.case.id


async def lost(bank: Bank, case_id: str) -> None:
    """The case was approved and sent, and then the process that carried it out died."""
    room = bank.running.app.approvals
    room.on_approved = lambda case: None
    await bank.running.app.registry.people.add("rob", name="Rob", roles=[Role.REVIEWER], by="operator")
    digest = (await room.case(case_id)).presented_digest
    case = await room.vote(case_id, "rob", Choice.APPROVE, presented_digest=digest)
    await bank.running.app.writer.write(room.begin(case, case.requirement))
    await room.tick()


# ---------------------------------------------------------------- the queue


async def test_an_empty_queue_says_what_would_fill_it(bank: Bank) -> None:
    async with await bank.reviewer() as rita:
        page = await queue(rita)
        assert EMPTY in page.text
        assert "escalate" in page.text
        assert "There are no such cases" in (await queue(rita, status="denied")).text
        assert "There are no such cases" in (await queue(rita, agent="writer")).text


async def test_a_line_says_what_is_wanted_by_whom_how_risky_why_held_and_who_may_decide(bank: Bank) -> None:
    async with (
        await bank.running.agent(user="uma") as agent,
        await bank.reviewer() as rita,
        await bank.reviewer("dana") as dana,
    ):
        case_id = await bank.case(agent)
        page = await queue(rita)
        assert listed(page) == [case_id]
        for told in (
            "Transfer 900.00 USD to acme-gmbh",
            "reader for uma",
            "high risk write",
            "ledger_large_transfer",
            "0 of 1",
            "pending expires in 3 h 59 min",
            "may decide",
        ):
            assert told in page.text, f"{told} in {page.text}"
        assert {"href": f"{QUEUE}/{case_id}"} in page.all("a")
        assert "You own the agent reader" in (await queue(dana)).text
    reads = [record["labels"] for record in await bank.running.events("audit.read")]
    assert reads.count({"subject.approvals": "{}"}) == 2


async def test_what_expires_first_is_on_top_and_what_goes_on_below(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        late = await bank.case(agent, reference="late")
        await configure(bank, "ttl_s: 600")
        soon = await bank.case(agent, reference="soon")
        await configure(bank, "ttl_s: 6000")
        later = await bank.case(agent, reference="later")
        ended = await bank.case(agent, reference="ended")
        await vote(rita, ended, "deny", guidance="No.")
        unknown = await bank.case(agent, reference="unknown")
        await lost(bank, unknown)
        page = await queue(rita)
        assert listed(page) == [soon, later, late, unknown]
        assert "1 unknown" in page.text
        assert "may reconcile" in page.text
        assert listed(await queue(rita, status="pending")) == [soon, later, late]
        assert listed(await queue(rita, status="all")) == [unknown, ended, later, soon, late]
        assert listed(await queue(rita, status="denied")) == [ended]


async def test_the_queue_is_filtered_and_goes_on_page_by_page(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.console.approvals_pages.PAGE_SIZE", 2)
    async with (
        await bank.running.agent() as agent,
        await bank.running.agent("writer") as other,
        await bank.reviewer() as rita,
    ):
        mine = [await bank.case(agent, reference=f"INV-{number}") for number in range(5)]
        theirs = await bank.case(other)
        for asked, expected in (({"agent": "reader"}, mine), ({"agent": "reader", "status": "all"}, mine[::-1])):
            seen: list[str] = []
            address = f"{QUEUE}?{httpx.QueryParams(asked)}"
            while address:
                answer = await rita.get(address)
                seen += listed(Page(answer.text))
                more = re.search(r'href="([^"]+)">Next page', answer.text)
                address = more[1].replace("&amp;", "&") if more else ""
            assert seen == expected
            assert f'<a href="{QUEUE}?' in answer.text  # back to the first page, with the filter
        assert listed(await queue(rita, agent="writer")) == [theirs]
        for wrong in ({"cursor": "x"}, {"cursor": "0_99999999999999999999_a"}, {"status": "odd"}):
            assert (await rita.get(QUEUE, params=wrong)).status_code == 400


async def test_the_menu_and_the_overview_count_what_waits(bank: Bank) -> None:
    async with (
        await bank.running.agent() as agent,
        await bank.reviewer() as rita,
        await bank.reviewer("opal", Role.OPERATOR) as opal,
    ):
        assert "nothing waits for people" in Page((await rita.get("/console/overview")).text).text
        await bank.case(agent)
        page = Page((await rita.get("/console/agents")).text)
        assert "Approvals 1 waiting" in page.text
        overview = Page((await rita.get("/console/overview")).text)
        assert "1 waits for people" in overview.text
        assert [link["href"] for link in overview.all("a")].count(QUEUE) == 2
        seen = Page((await opal.get("/console/overview")).text)
        assert "1 waits for people" in seen.text
        assert QUEUE not in [link["href"] for link in seen.all("a")]


# ---------------------------------------------------------------- the page of a case


async def test_a_case_shows_what_a_reviewer_needs_to_decide(bank: Bank) -> None:
    async with await bank.running.agent(user="uma") as agent, await bank.reviewer() as rita:
        agent.headers["x-gateway-purpose"] = "to pay the rent"
        case_id = await bank.case(agent)
        answer = await rita.get(f"{QUEUE}/{case_id}")
        page = check_page(answer, scripted=True)
    assert '<h1 class="sentence"><bdi>Transfer 900.00 USD to acme-gmbh</bdi></h1>' in answer.text
    digest = (await bank.running.app.approvals.case(case_id)).presented_digest
    for told in (
        "high risk write cannot be undone financial data asked by reader for uma of team finance",
        "amount_cents 90000 = 900.00 USD money in USD cents, number",
        "to acme-gmbh payee",
        "Transfers above 10000 cents need a person's approval. Up to that amount they pass without one.",
        "Rule: ledger_large_transfer",
        "claimed, unproven The agent says of it: to pay the rent",
        "business: dana",
        "ledger__transfer, owned by treasury@example.com",
        "expires in 3 h 59 min",
        "0 of 1 approved",
        "executes it once, as soon as it is approved",
        digest[:19],
    ):
        assert told in page.text, f"{told} in {page.text}"
    assert forms(page) == ["Approve", "Deny", "End without a decision", "Comment"]
    labels = {label["for"] for label in page.all("label")}
    fields = [*page.all("textarea"), *(one for one in page.all("input") if one["type"] != "hidden")]
    assert {field["id"] for field in fields} <= labels
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert all(deeper - before <= 1 for before, deeper in pairwise(headings))
    reads = [record["labels"] for record in await bank.running.events("audit.read")]
    assert {"subject.case": case_id} in reads


async def test_hostile_values_stay_in_their_place_and_what_cannot_be_seen_is_seen(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita, await bank.reviewer("rob") as rob:
        agent.headers["x-gateway-purpose"] = "<b>trust me</b>"
        case_id = await bank.case(agent, reference=HOSTILE + UNSEEN)
        await send(rita, case_id, "comments", text=f"{HOSTILE}\u202e")
        await vote(rita, case_id, "deny", guidance=f"{HOSTILE}\u2066", reason=HOSTILE)
        for browser in (rita, rob):
            answer = await browser.get(f"{QUEUE}/{case_id}")
            page = check_page(answer, scripted=True)
            assert not page.all("b")
            assert not set("\u202e\u200b\u2066\x00") & set(answer.text)
            assert "{{7*7}}" in page.text
            assert 'title="U+202E RIGHT-TO-LEFT OVERRIDE">\\u{202e}</span>gnp.exe' in answer.text
            assert page.text.count("<script>alert(1)</script>") == 5  # argument, comment, guidance twice, reason
            assert "<b>trust me</b>" in page.text
        check_page(await rita.get(QUEUE, params={"status": "all", "agent": HOSTILE}), scripted=True)
        check_page(await rita.get(f"{QUEUE}/{quote(HOSTILE, safe='')}"))


async def test_long_values_fold_and_what_the_page_has_no_room_for_is_said(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.console.case_view.MAX_SHOWN", 1000)
    script = "line\n" * 100 + "the end"
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await propose(bank, agent, {"script": script, "short": "a\nb", "more": "x" * 1000, "last": {"a": 1}})
        page = await look(rita, case_id)
        assert len(page.all("details")) == 3  # two values, and the form that ends the case
        assert "507 characters" in page.text
        assert "the end" in page.text
        assert "not all is shown 521 more characters" in page.text
        assert "not all are shown 1 more arguments" in page.text


async def test_a_like_case_is_named_with_the_argument_that_differs(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        first = await bank.case(agent, reference="INV-9-retry-1")
        second = await bank.case(agent, reference="INV-9-retry-2")
        third = await bank.case(agent, reference="INV-9-retry-1", amount_cents=100_000)
        page = await look(rita, first)
        assert {f"{QUEUE}/{second}", f"{QUEUE}/{third}"} <= {str(link["href"]) for link in page.all("a")}
        assert "reference: INV-9-retry-2 there, INV-9-retry-1 here" in page.text
        assert "amount_cents: 1000.00 USD there, 900.00 USD here" in page.text
        shown = (await rita.get(f"/api/v1/approvals/{second}")).json()["like"]
        assert [[one["name"] for one in like["differs"]] for like in shown] == [
            ["reference"],
            ["amount_cents", "reference"],
        ]
        assert shown[0]["differs"] == [{"name": "reference", "here": "INV-9-retry-2", "there": "INV-9-retry-1"}]


async def test_a_proposal_says_that_the_agent_executes_it(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await propose(bank, agent, {"command": "rm -r .", "where": None, "times": 2})
        page = await look(rita, case_id)
        assert "The agent executes this tool itself: approval releases the model's stored answer" in page.text
        assert "in no manifest" in page.text
        assert "command rm -r . text" in page.text
        assert "where null nothing times 2 number" in page.text
        assert "executed by the agent itself" in (await queue(rita)).text
        assert (await vote(rita, case_id, "approve")).status_code == 303
        assert "stored answer is released when the agent asks" in (await look(rita, case_id)).text


# ---------------------------------------------------------------- forms


async def test_an_approval_by_form_leads_back_to_the_case_and_the_call_runs_once(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        answer = await vote(rita, case_id, "approve", reason="invoice 9")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{QUEUE}/{case_id}")
        waited = (await agent.get(f"/api/v1/actions/{case_id}", params={"wait": 25})).json()
        assert waited["status"] == "succeeded"
        page = await look(rita, case_id)
        assert "Approved and carried out." in page.text
        assert "approved rita" in page.text
        assert "Reason: invoice 9" in page.text
        assert forms(page) == ["Comment"]
        assert listed(await queue(rita)) == []
    assert bank.transfers() == 1


async def test_guidance_typed_into_the_form_reaches_the_agent_line_by_line(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        await vote(rita, case_id, "deny", guidance="Pay in two parts.\r\nAsk Olga.", reason="no invoice")
        told = (await agent.get(f"/api/v1/actions/{case_id}")).json()
        assert told["status"] == "denied"
        assert "Pay in two parts.\nAsk Olga." in told["guidance"]
        assert "no invoice" not in str(told)
        assert "The agent was told: Pay in two parts." in (await look(rita, case_id)).text.replace("\\n", " ")
    assert bank.transfers() == 0


async def test_a_vote_on_what_is_not_shown_any_more_is_not_counted_and_comes_back(bank: Bank) -> None:
    await ask_two(bank)
    async with await bank.running.agent() as agent, await bank.reviewer() as rita, await bank.reviewer("rob") as rob:
        case_id = await bank.case(agent)
        seen = (await look(rob, case_id)).fields("deny")
        assert (await vote(rita, case_id, "approve")).status_code == 303
        stale = await send(rob, case_id, "reviews", **seen, guidance="Wait for\r\nthe invoice.")
        page = check_page(stale, scripted=True)
        assert stale.status_code == 409
        assert "Not counted: what you saw has changed" in page.text
        assert "1 of 2 approved" in page.text
        assert "approved rita" in page.text
        assert ">Wait for\nthe invoice.</textarea>" in stale.text
        assert page.fields("deny")["version"] != seen["version"]
        other = {**page.fields("deny"), "presented_digest": f"sha256:{'0' * 64}", "guidance": "No."}
        assert (await send(rob, case_id, "reviews", **other)).status_code == 409
        assert [one.person for one in await bank.running.app.approvals.votes(case_id)] == ["rita"]
        assert "You have voted already" in (await look(rita, case_id)).text
        assert "You have voted already" in (await queue(rita)).text
        assert "1 of 2" in (await queue(rob)).text
        assert (await send(rob, case_id, "reviews", **page.fields("approve"))).status_code == 303
        late = await send(rob, case_id, "reviews", **page.fields("approve"))
        assert late.status_code == 409
        assert "Not counted" in Page(late.text).text
        await agent.get(f"/api/v1/actions/{case_id}", params={"wait": 25})
    assert bank.transfers() == 1


@pytest.mark.parametrize(
    "wrong", [{"version": ""}, {"version": "x"}, {"presented_digest": ""}, {"decision": "perhaps"}, {"reason": "\x00"}]
)
async def test_a_form_that_cannot_be_read_changes_nothing_and_says_so(bank: Bank, wrong: dict[str, str]) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        fields = {**(await look(rita, case_id)).fields("approve"), **wrong}
        answer = await send(rita, case_id, "reviews", **fields)
        assert answer.status_code == 400
        assert "Not done" in check_page(answer, scripted=True).text
        assert await state(bank, case_id) is State.PENDING


async def test_owners_are_told_why_they_do_not_decide_and_a_forged_vote_is_on_record(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita, await bank.reviewer("dana") as dana:
        case_id = await bank.case(agent)
        fields = (await look(rita, case_id)).fields("approve")
        page = await look(dana, case_id)
        assert "You own the agent reader" in page.text
        assert "Approve" not in forms(page)
        forged = await send(dana, case_id, "reviews", **fields)
        assert forged.status_code == 403
        assert "another reviewer must decide" in check_page(forged, scripted=True).text
        await queue(dana)  # its record is durable when it answers, and so are those before it
        assert await state(bank, case_id) is State.PENDING
    (refused,) = await bank.running.events("person.refused")
    assert (refused["actor"]["user"], refused["labels"]["code"]) == ("dana", "separation_of_duties")


async def test_auditors_look_and_change_nothing(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer("olga", Role.AUDITOR) as olga:
        case_id = await bank.case(agent)
        assert listed(await queue(olga)) == [case_id]
        page = await look(olga, case_id)
        assert "You are not a reviewer." in page.text
        assert forms(page) == []
        digest = (await bank.running.app.approvals.case(case_id)).presented_digest
        for form, fields in (
            ("reviews", {"decision": "approve", "presented_digest": digest, "version": "1"}),
            ("comments", {"text": "x"}),
            ("cancel", {"why": "x"}),
            ("reconcile", {"outcome": "failed", "note": "x"}),
        ):
            assert (await send(olga, case_id, form, **fields)).status_code == 403
        await queue(olga)  # its record is durable when it answers, and so are those before it
        assert await state(bank, case_id) is State.PENDING
    assert len(await bank.running.events("person.refused")) == 4


async def test_operators_end_a_case_without_reading_it_and_others_see_nothing(bank: Bank) -> None:
    async with (
        await bank.running.agent() as agent,
        await bank.reviewer("opal", Role.OPERATOR) as opal,
        await bank.reviewer("otto", Role.OWNER) as otto,
    ):
        case_id = await bank.case(agent)
        assert (await opal.get(QUEUE)).status_code == 403
        answer = await opal.get(f"{QUEUE}/{case_id}")
        page = check_page(answer)
        assert forms(page) == ["End without a decision"]
        for secret in ("900.00", "acme", "INV-9", "90000"):
            assert secret not in answer.text
        actions = Page((await opal.get("/console/activity")).text)
        action = next(str(one["href"]) for one in actions.all("a") if "/activity/" in str(one["href"]))
        assert f'"{QUEUE}/{case_id}"' in (await opal.get(action)).text
        for address in (QUEUE, f"{QUEUE}/{case_id}"):
            assert (await otto.get(address)).status_code == 403
        ended = await send(opal, case_id, "cancel", why="Paid by hand.")
        assert ended.status_code == 303
        assert "Paid by hand." in (await opal.get(ended.headers["location"])).text
        assert await state(bank, case_id) is State.CANCELLED
        again = await send(opal, case_id, "cancel", why="Again.")
        assert again.status_code == 409
        assert "Not done" in check_page(again).text
        told = (await agent.get(f"/api/v1/actions/{case_id}")).json()
        assert "Paid by hand." in told["guidance"]


async def test_people_talk_about_a_case_and_the_agent_does_not_hear(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        assert (await send(rita, case_id, "comments", text="I ask\r\nthe supplier.")).status_code == 303
        assert "rita" in (await look(rita, case_id)).text
        assert "I ask\nthe supplier." in (await rita.get(f"{QUEUE}/{case_id}")).text
        empty = await send(rita, case_id, "comments", text=" ")
        assert (empty.status_code, "A comment needs words" in empty.text) == (400, True)
        assert "supplier" not in (await agent.get(f"/api/v1/actions/{case_id}")).text


async def test_what_nobody_knows_is_found_out_and_said_by_form(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        await lost(bank, case_id)
        page = await look(rita, case_id)
        assert "nobody knows whether it was done" in page.text
        assert forms(page) == ["Reconcile", "Comment"]
        unsaid = await send(rita, case_id, "reconcile", outcome="succeeded", note=" ")
        assert unsaid.status_code == 400
        assert 'value="succeeded" required checked' in unsaid.text
        assert (await send(rita, case_id, "reconcile", outcome="perhaps", note="x")).status_code == 400
        done = await send(rita, case_id, "reconcile", outcome="failed", note="The ledger has no such entry.")
        assert done.status_code == 303
        page = await look(rita, case_id)
        assert "Found: The ledger has no such entry." in page.text
        assert await state(bank, case_id) is State.FAILED


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://gateway.test", "sec-fetch-site": "cross-site"},
        {"origin": "http://gateway.test", "sec-fetch-site": "same-site"},
    ],
)
async def test_a_form_on_another_site_is_refused(bank: Bank, headers: dict[str, str]) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        fields = (await look(rita, case_id)).fields("approve")
        for form, said in (("reviews", fields), ("comments", {"text": "x"}), ("cancel", {"why": "x"})):
            answer = await rita.post(f"{QUEUE}/{case_id}/{form}", data=said, headers=headers)
            assert answer.status_code == 403
        assert await state(bank, case_id) is State.PENDING
        assert not await bank.running.app.approvals.votes(case_id)


async def test_no_link_decides_and_an_unknown_case_is_a_page_too(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        fields = (await look(rita, case_id)).fields("approve")
        for form in ("reviews", "comments", "cancel", "reconcile"):
            got = await rita.get(f"{QUEUE}/{case_id}/{form}", params=fields)
            assert got.status_code == 405
            check_page(got)
        for answer in (await rita.get(f"{QUEUE}/nothing"), await send(rita, "nothing", "reviews", **fields)):
            assert answer.status_code == 404
            check_page(answer)
        assert await state(bank, case_id) is State.PENDING


async def test_when_no_look_can_be_recorded_no_case_is_shown(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await bank.case(agent)
        bank.running.app.writer.latch("the test says so")
        for address in (QUEUE, f"{QUEUE}/{case_id}"):
            answer = await rita.get(address)
            assert answer.status_code == 503
            assert str(LARGE["to"]) not in answer.text


def test_the_pages_say_what_every_state_means() -> None:
    from gateway.console.case_view import meaning

    told: dict[str, Any] = {
        one.value: meaning({"state": one.value, "kind": "tool.call", "execute_on": "claim"}) for one in State
    }
    assert len(set(told.values())) == len(State)


async def test_reviewers_read_the_note_of_a_rule_and_the_agent_does_not(bank: Bank) -> None:
    note = "unattended_limit_cents"  # where the shipped rule says that its limit can be changed
    agent, reviewer = await bank.running.agent(), await bank.reviewer()
    async with agent, reviewer, bank.running.operator() as operator:
        waiting = await bank.transfer(agent)
        case_id = (await bank.running.app.approvals.find(status="open", limit=1)).cases[0].id
        asked = {"name": "gateway__approval_status", "arguments": {"case_id": case_id, "wait_s": 0}}
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked}
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
        told = await agent.post("/mcp", json=body, headers={**headers, "host": "127.0.0.1"})
        mine = await agent.get(f"/api/v1/actions/{case_id}")
        for answer in (waiting, told, mine):
            assert "Transfers above 10000 cents need a person" in answer.text
            assert note not in answer.text
            assert "data.yaml" not in answer.text
        page = await look(reviewer, case_id)
        assert note in page.text
        case = (await operator.get(f"/api/v1/approvals/{case_id}")).json()
        assert note in case["notes"][0]
        assert case["card"]["notes"] == case["notes"]
        assert all(note not in reason for reason in case["reasons"])
        assert (await vote(reviewer, case_id, "approve")).status_code == 303
        denied = await bank.transfer(agent, to="mallory")
        assert "is not the id of a listed payee" in denied.text
        assert "data.yaml" not in denied.text
