"""Invariant 3, through the whole gateway: a vote is for exactly what was shown, and policy is asked again on what is so
when the action is about to run. What changes in between blocks it or has people look again, and each is on record.

Most cases here wait to be claimed (`execute_on: claim`), so that there is a between; the others have a caller who is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.actions import Reply
from gateway.identity import Role
from gateway.quickstart.account import TOOLS
from tests.bank_house import LARGE, Bank
from tests.gateway_house import CONFIG
from tests.invariants.counter import CLAIM, PATIENCE_S, Counter, is_paid, refused

AGAIN = ["action.requested", "case.approved", "case.requeued"]
ONCE_MORE = [*AGAIN, "case.approved", "action.intent", "action.result"]
DONE = ["action.requested", "case.approved", "action.intent", "action.result"]
BLOCKED = ["action.requested", "case.approved", "case.invalidated"]
LEDGER = "tools_registry/ledger.yaml"
FROZEN = """\
deny contains {"rule": "payments_frozen", "reason": "Payments are frozen until Monday."} if {
	input.target.id == "ledger__transfer"
	input.action.kind == "tool.call"
}
"""


@pytest.fixture
async def counter(bank: Bank) -> AsyncIterator[Counter]:
    counter = Counter(bank)
    await counter.configure()
    yield counter
    await counter.verified()


# ---------------------------------------------------------------- the action


async def test_an_approval_is_for_its_own_arguments_only(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    case_id = await counter.approved(agent, rita)
    for other in ({"amount_cents": 90_001}, {"reference": "INV-9 "}, {"to": "city-utilities"}):
        code, words = refused(await counter.call(agent, **{**LARGE, **other}))
        assert (code, case_id in words) == ("approval_required", False)
    assert counter.bank.transfers() == 0
    assert [case.state for case in (await counter.app.approvals.find(status="open")).cases] == [
        *["pending"] * 3,
        "approved",
    ]
    assert is_paid(await counter.call(agent))
    assert await counter.went(case_id) == DONE
    assert counter.bank.transfers() == 1


async def test_who_is_told_to_wait_is_told_why_and_what_would_pass(counter: Counter, agent: httpx.AsyncClient) -> None:
    code, words = refused(await counter.call(agent))
    assert (code, words.startswith("NOT executed. Waiting for approval: case ")) == ("approval_required", True)
    assert "Up to that amount they pass without one." in words


async def test_an_approval_is_for_its_own_agent_and_user(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    case_id = await counter.approved(agent, rita)
    async with (
        await counter.bank.running.agent("writer") as writer,
        await counter.bank.running.agent(user="uma") as uma,
    ):
        for other in (writer, uma):
            code, words = refused(await counter.call(other))
            assert (code, case_id in words) == ("approval_required", False)
            status = await counter.call(other, "gateway__approval_status", case_id=case_id)
            assert refused(status)[0] == "not_found"
    assert (await counter.shown(rita, case_id))["state"] == "approved"
    assert counter.bank.transfers() == 0


# ---------------------------------------------------------------- the tool


async def test_another_definition_is_another_card_on_which_earlier_votes_do_not_count(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id = await counter.approved(agent, rita)
    before = await counter.shown(rita, case_id)
    changed = TOOLS["transfer"].model_copy(update={"description": "Transfers money, and tells nobody."})
    monkeypatch.setitem(TOOLS, "transfer", changed)
    await counter.app.tools.refresh("ledger")
    async with asyncio.timeout(PATIENCE_S):
        while counter.app.catalog.tool("ledger", "transfer").definition_digest == before["card"]["definition_digest"]:
            await asyncio.sleep(0.01)
    assert refused(await counter.call(agent))[0] == "approval_required"
    shown = await counter.shown(rita, case_id)
    assert (shown["state"], shown["may_decide"]["ok"]) == ("pending", True)
    assert [vote["counts"] for vote in shown["votes"]] == [False]
    assert shown["presented_digest"] != before["presented_digest"]
    assert (await counter.status(agent, case_id, 0))["state"] == "pending"
    assert await counter.went(case_id) == AGAIN
    assert "definition" in (await counter.last(case_id, "case.requeued"))["labels"]["why"]
    stale = await counter.vote(rita, case_id, presented_digest=before["presented_digest"])
    assert (stale.status_code, stale.json()["code"]) == (409, "stale")
    assert counter.bank.transfers() == 0
    assert await counter.approve(rita, case_id) == "approved"
    assert is_paid(await counter.call(agent))
    assert await counter.went(case_id) == ONCE_MORE
    assert counter.bank.transfers() == 1


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("risk: high", "risk: critical", "risk"),
        ("currency: USD", "currency: JPY", "sentence"),
    ],
)
async def test_what_the_manifest_says_of_the_tool_is_part_of_what_was_approved(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, old: str, new: str, what: str
) -> None:
    case_id = await counter.approved(agent, rita)
    before = (await counter.shown(rita, case_id))["card"]
    await counter.edit(LEDGER, old, new)
    assert refused(await counter.call(agent))[0] == "approval_required"
    shown = await counter.shown(rita, case_id)
    facts = [{**card["target"], "sentence": card["sentence"]}[what] for card in (before, shown["card"])]
    assert facts[0] != facts[1]
    assert [vote["counts"] for vote in shown["votes"]] == [False]
    assert await counter.went(case_id) == AGAIN
    assert "manifest" in (await counter.last(case_id, "case.requeued"))["labels"]["why"]
    assert await counter.approve(rita, case_id) == "approved"
    assert is_paid(await counter.call(agent))
    assert counter.bank.transfers() == 1


@pytest.mark.parametrize("approvals", ["", CLAIM])
async def test_a_quarantined_tool_is_not_called(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, approvals: str
) -> None:
    await counter.configure(approvals, hold_s=PATIENCE_S)
    call, case_id = await counter.held(agent)
    await counter.edit(LEDGER, "  transfer:\n", f"  transfer:\n    pin: sha256:{'0' * 64}\n")
    await counter.approve(rita, case_id)
    assert "Unknown tool" in (await call)["error"]["message"]  # as of any tool that nobody may call
    assert await counter.went(case_id) == BLOCKED
    labels = (await counter.last(case_id, "case.invalidated"))["labels"]
    assert (labels["code"], "pinned" in labels["why"]) == ("unknown_tool", True)
    assert "pinned" in (await counter.status(agent, case_id))["guidance"]
    assert counter.bank.transfers() == 0


# ---------------------------------------------------------------- the agent


async def test_a_suspended_agents_call_does_not_run_and_asks_anew_once_it_is_resumed(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    await counter.configure("", hold_s=PATIENCE_S)
    call, case_id = await counter.held(agent)
    agents = counter.app.registry.agents
    await agents.suspend("reader", person="operator", reason="It runs wild.")
    assert (await call)["error"]["data"]["gateway/code"] == "agent_suspended"
    assert await counter.approve(rita, case_id) == "approved"
    await counter.until(case_id, "invalidated")
    assert await counter.went(case_id) == BLOCKED
    assert (await counter.last(case_id, "case.invalidated"))["labels"]["code"] == "agent_suspended"
    await agents.resume("reader", person="operator", reason="It is well.")
    await counter.configure("")
    assert case_id not in refused(await counter.call(agent))[1]
    assert counter.bank.transfers() == 0


async def test_what_waits_to_be_claimed_waits_out_a_suspension(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    case_id = await counter.approved(agent, rita)
    agents = counter.app.registry.agents
    await agents.suspend("reader", person="operator", reason="A look at it.")
    for answer in (await counter.call(agent), await counter.call(agent, "gateway__approval_status", case_id=case_id)):
        assert answer["error"]["data"]["gateway/code"] == "agent_suspended"
    assert (await counter.shown(rita, case_id))["state"] == "approved"
    await agents.resume("reader", person="operator", reason="It is well.")
    assert is_paid(await counter.call(agent))
    assert await counter.went(case_id) == DONE


async def test_an_agent_that_is_not_registered_any_more_does_nothing(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    await counter.configure("")
    case_id = await counter.bank.case(agent)
    await counter.configure(
        "", config=CONFIG.replace("  - {id: reader, team: finance, owners: {business: dana}}\n", "")
    )
    await counter.approve(rita, case_id)
    await counter.until(case_id, "invalidated")
    assert await counter.went(case_id) == BLOCKED
    assert counter.bank.transfers() == 0


async def test_policy_sees_the_agent_as_it_is_when_the_action_runs(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    case_id = await counter.approved(agent, rita)
    other = await counter.bank.case(agent, reference="INV-10")
    await counter.approve(rita, other)
    reader = "{id: reader, team: finance,"
    await counter.configure(config=CONFIG.replace(reader, "{id: reader, team: finance, version: '2',"))
    assert is_paid(await counter.call(agent))  # a new version may do what the rules let it do, and is on record as such
    versions = {record["type"]: record["actor"]["version"] for record in await counter.records(case_id)}
    assert (versions["action.requested"], versions["action.intent"], versions["action.result"]) == ("1", "2", "2")
    await counter.configure(
        config=CONFIG.replace(reader, "{id: reader, team: sales,")
    )  # sales was not given the ledger
    assert (await counter.status(agent, other))["state"] == "invalidated"
    labels = (await counter.last(other, "case.invalidated"))["labels"]
    assert labels["rules"] == "tool_not_granted"
    assert counter.bank.transfers() == 1


# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize("approvals", ["", CLAIM])
async def test_a_deny_rule_wins_over_votes_and_who_waits_is_told_which_and_why(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, approvals: str
) -> None:
    await counter.configure(approvals, hold_s=PATIENCE_S)
    call, case_id = await counter.held(agent)
    await counter.rule(FROZEN)
    await counter.approve(rita, case_id)
    code, words = refused(await call)
    assert (code, case_id in words) == ("denied_by_policy", True)
    assert "Payments are frozen until Monday." in words
    assert "payments_frozen" in words
    assert "Up to that amount they pass" not in words  # which was so of the rule that asked people, and is no more
    assert await counter.went(case_id) == BLOCKED
    labels = (await counter.last(case_id, "case.invalidated"))["labels"]
    assert (labels["code"], labels["rules"]) == ("denied_by_policy", "payments_frozen")
    assert "frozen until Monday" in labels["why"]
    assert counter.bank.transfers() == 0


@pytest.mark.parametrize("way", ["identical call", "status"])
async def test_an_approval_that_a_rule_denies_when_it_is_claimed_does_not_outlive_the_rule(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, way: str
) -> None:
    case_id = await counter.approved(agent, rita)
    await counter.rule(FROZEN)
    if way == "status":
        status = await counter.status(agent, case_id)
        assert (status["state"], "frozen until Monday" in status["guidance"]) == ("invalidated", True)
    else:
        code, words = refused(await counter.call(agent))
        assert (code, "payments_frozen" in words) == ("denied_by_policy", True)
    assert await counter.went(case_id) == BLOCKED
    await counter.rule("")
    code, words = refused(await counter.call(agent))
    assert (code, case_id in words) == ("approval_required", False)
    assert counter.bank.transfers() == 0


@pytest.mark.parametrize("approvals", ["", CLAIM])
async def test_a_rule_that_asks_for_more_has_people_look_again_while_the_caller_waits_on(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient, approvals: str
) -> None:
    await counter.configure(approvals, hold_s=PATIENCE_S)
    call, case_id = await counter.held(agent)
    await counter.asks('{"quorum": [{"approve": 2}]}')
    assert await counter.approve(rita, case_id) == "approved"  # by what was asked when it was opened
    await counter.until(case_id, "pending")
    shown = await counter.shown(rita, case_id)
    # The card says that two are needed now, so it is another one: what was said of the first does not count.
    assert [(one["approve"], one["approved"]) for one in shown["quorum"]] == [(2, 0)]
    assert [vote["counts"] for vote in shown["votes"]] == [False]
    assert await counter.approve(rita, case_id) == "pending"
    assert not call.done()
    assert await counter.approve(rob, case_id) == "approved"
    assert is_paid(await call)
    assert await counter.went(case_id) == [*AGAIN, "case.voted", *ONCE_MORE[3:]]
    assert "not enough any more" in (await counter.last(case_id, "case.requeued"))["labels"]["why"]
    assert counter.bank.transfers() == 1


async def test_a_rule_that_asks_for_less_or_nothing_lets_it_run(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    less, nothing, undecided = [await counter.bank.case(agent, reference=f"INV-{number}") for number in range(3)]
    for case_id in (less, nothing):
        await counter.approve(rita, case_id)
        await counter.approve(rob, case_id)
    await counter.approve(rita, undecided)
    await counter.rule("")
    assert is_paid(await counter.call(agent, **{**LARGE, "reference": "INV-0"}))
    intent = await counter.last(less, "action.intent")
    assert (intent["decision"]["effect"], intent["decision"]["rules"]) == ("escalate", ["ledger_large_transfer"])
    await counter.edit("policies/ledger/data.yaml", "unattended_limit_cents: 10000", "unattended_limit_cents: 100000")
    for number, case_id in ((1, nothing), (2, undecided)):
        assert is_paid(await counter.call(agent, **{**LARGE, "reference": f"INV-{number}"}))
        assert (await counter.last(case_id, "action.intent"))["decision"]["effect"] == "allow"
    assert (await counter.last(undecided, "case.approved"))["labels"]["by"] == "policy"
    assert counter.bank.transfers() == 3


async def test_what_is_left_of_budgets_is_asked_when_it_runs(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    """A transfer costs the gateway nothing, so only a rule can hold it against a budget; rates were met by asking."""
    limits = 'limits: {agents: {reader: {requests_per_minute: 4, budgets: [{window: day, usd: "1"}]}}}\n'
    await counter.configure(config=CONFIG + limits)
    case_id = await counter.approved(agent, rita)
    await counter.rule(
        'deny contains {"rule": "budget_touched", "reason": "Today\'s budget is touched."} if {\n'
        '\tledger_transfer\n\tsome budget in input.limits["agent:reader"].budgets\n'
        "\tbudget.left_nanousd < budget.limit_nanousd\n}\n"
    )
    await counter.bank.running.ask(agent)  # costs something
    assert (await counter.status(agent, case_id))["state"] == "invalidated"
    assert (await counter.last(case_id, "case.invalidated"))["labels"]["rules"] == "budget_touched"
    await counter.configure("", config=CONFIG + limits)
    await counter.rule("")
    other = await counter.bank.case(agent)
    assert refused(await counter.call(agent))[0] == "rate_limited"
    await counter.approve(rita, other)
    await counter.until(other, "succeeded")
    assert counter.bank.transfers() == 1


# ---------------------------------------------------------------- who voted


@pytest.mark.parametrize("taken", ["role", "group", "person"])
async def test_the_vote_of_who_may_not_decide_any_more_does_not_carry(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient, taken: str
) -> None:
    await counter.asks('{"quorum": [{"group": "treasury"}]}')
    for person in ("rita", "rob"):
        await counter.people.update(person, by="operator", groups=["treasury"])
    case_id = await counter.approved(agent, rita)
    before = (await counter.shown(rob, case_id))["presented_digest"]
    if taken == "person":
        await counter.people.remove("rita", by="operator")
    else:
        changed = {"roles": [Role.AUDITOR]} if taken == "role" else {"groups": ["risk"]}
        await counter.people.update("rita", by="operator", **changed)
    assert refused(await counter.call(agent))[0] == "approval_required"
    shown = await counter.shown(rob, case_id)
    assert (shown["state"], shown["presented_digest"]) == ("pending", before)  # the card is as it was, only not carried
    assert shown["quorum"][0]["approved"] == 0
    assert await counter.went(case_id) == AGAIN
    assert "no longer counts" in (await counter.last(case_id, "case.requeued"))["labels"]["why"]
    assert counter.bank.transfers() == 0
    assert await counter.approve(rob, case_id) == "approved"
    assert is_paid(await counter.call(agent))
    assert await counter.went(case_id) == ONCE_MORE


async def test_who_owns_the_agent_by_now_has_not_approved_its_action(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    case_id = await counter.approved(agent, rita)
    await counter.configure(config=CONFIG.replace("{business: dana}", "{business: Rita}"))
    assert refused(await counter.call(agent))[0] == "approval_required"
    assert await counter.went(case_id) == AGAIN
    assert (await counter.vote(rita, case_id)).json()["code"] == "separation_of_duties"
    assert counter.bank.transfers() == 0
    assert await counter.approve(rob, case_id) == "approved"
    assert is_paid(await counter.call(agent))


async def test_of_a_quorum_the_votes_that_are_left_still_count(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    case_id = await counter.bank.case(agent)
    assert [await counter.approve(person, case_id) for person in (rita, rob)] == ["pending", "approved"]
    await counter.people.remove("rita", by="operator")
    assert refused(await counter.call(agent))[0] == "approval_required"
    assert (await counter.shown(rob, case_id))["quorum"][0]["approved"] == 1
    async with await counter.bank.reviewer("ruth") as ruth:
        assert await counter.approve(ruth, case_id) == "approved"
    assert is_paid(await counter.call(agent))


async def test_a_rule_that_asks_who_approved_is_told_of_votes_that_count_today_only(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    """`input.approval` names whose votes carry, so that no rule goes by somebody who may not decide any more."""
    await counter.asks('{"quorum": [{"approve": 2}], "execute_on": "claim"}')
    case_id = await counter.bank.case(agent)
    await counter.approve(rita, case_id)
    await counter.approve(rob, case_id)
    await counter.rule(
        'deny contains {"rule": "rita_must", "reason": "Rita must have approved."} if {\n\tledger_transfer\n'
        "\tcount(input.approval.votes) > 0\n\tnames := {vote.person | some vote in input.approval.votes}\n"
        '\tcount({"rita"} - names) > 0\n}\n'
    )
    await counter.people.update("rita", by="operator", roles=[Role.AUDITOR])
    assert (await counter.status(agent, case_id))["state"] == "invalidated"
    assert (await counter.last(case_id, "case.invalidated"))["labels"]["rules"] == "rita_must"
    assert counter.bank.transfers() == 0


# ---------------------------------------------------------------- what policy makes of the approval itself

READS_THE_APPROVAL = """\
escalate contains {"rule": "ask", "reason": "People decide."} if {
	ledger_transfer
	input.approval == null
}

allow contains {"rule": "people_said_so", "reason": "People have approved it."} if {
	ledger_transfer
	count(input.approval.votes) > 0
}
"""
LARGE_RULE = 'escalate contains {"rule": "ledger_large_transfer", "reason": reason, "note": note} if {'


@pytest.mark.parametrize("changed", [False, True])
async def test_an_allow_that_owes_itself_to_the_votes_stands_on_what_they_were_for(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, *, changed: bool
) -> None:
    await counter.edit("policies/ledger/ledger.rego", LARGE_RULE, f"{LARGE_RULE}\n\tinput.approval == null")
    await counter.rule(READS_THE_APPROVAL)
    case_id = await counter.approved(agent, rita)
    if changed:
        await counter.edit(LEDGER, 'sentence: "Transfer', 'sentence: "Give')
        assert refused(await counter.call(agent))[0] == "approval_required"
        assert await counter.went(case_id) == AGAIN
        assert await counter.approve(rita, case_id) == "approved"
    assert is_paid(await counter.call(agent))
    assert counter.bank.transfers() == 1


async def test_what_stood_on_no_card_is_not_sent_with_what_people_approved(
    counter: Counter, rita: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, object] | None] = []
    call = counter.app.tools.call

    async def tapped(
        server: str, tool: str, arguments: dict[str, object], *, meta: dict[str, object] | None, once: bool
    ) -> Reply:
        sent.append(meta)
        assert once  # a vote is spent with what is sent
        return await call(server, tool, arguments, meta=meta, once=once)

    monkeypatch.setattr(counter.app.tools, "call", tapped)
    params = {"name": "ledger__transfer", "arguments": LARGE, "_meta": {"bank.example/debit": "somebody-else"}}
    async with await counter.bank.running.agent() as agent:
        headers = {"accept": "application/json", "mcp-protocol-version": "2025-11-25", "host": "127.0.0.1"}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        assert "Waiting for approval" in (await agent.post("/mcp", json=message, headers=headers)).text
        (case,) = (await counter.app.approvals.find(status="pending")).cases
        assert await counter.approve(rita, case.id) == "approved"
        assert "tr-1" in (await agent.post("/mcp", json=message, headers=headers)).text
    assert [list(meta or {}) for meta in sent] == [["traceparent"]]
