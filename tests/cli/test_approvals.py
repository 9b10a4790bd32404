from __future__ import annotations

import sys

import pytest

from ..bank_house import Bank
from .conftest import Shell

SENTENCE = "Transfer 900.00 USD to acme-gmbh"


async def test_a_case_is_listed_shown_and_approved_as_it_was_shown(shell: Shell, bank: Bank) -> None:
    assert "Nothing waits" in (await shell("approvals", "list")).out
    async with await bank.running.agent("writer") as agent:
        case_id = await bank.case(agent)
        listed = (await shell("approvals", "list")).out
        assert case_id in listed
        assert SENTENCE in listed
        assert "cases    1 pending" in (await shell("status")).out
        shown = (await shell("approvals", "show", case_id[-12:])).out
        for part in (SENTENCE, '"amount_cents": 90000', "need a person's approval", "owned by nobody", "0 of 1"):
            assert part in shown
        approved = (await shell("approvals", "approve", case_id[:23], "--yes", "--reason", "invoice")).out
        assert SENTENCE in approved
        assert f"You have approved {case_id}" in approved
        told = (await agent.get(f"/api/v1/actions/{case_id}", params={"wait": 20})).json()
        assert told["status"] == "succeeded"
    after = (await shell("approvals", "show", case_id, "--json")).json
    assert [(one["person"], one["reason"]) for one in after["votes"]] == [("operator", "invoice")]
    assert bank.transfers() == 1
    text = (await shell("approvals", "show", case_id)).out
    assert "operator: approve, reason: invoice" in text
    assert "attempt " in text


async def test_without_a_terminal_nothing_is_approved_unseen(
    shell: Shell, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await bank.running.agent("writer") as agent:
        case_id = await bank.case(agent)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
        refused = await shell("approvals", "approve", case_id, exit_code=2)
        assert "--digest" in refused.err
        assert "--yes" in refused.err
        wrong = f"sha256:{'0' * 64}"
        assert (
            "not what you were shown"
            in (await shell("approvals", "approve", case_id, "--digest", wrong, exit_code=1)).err
        )
        digest = (await shell("approvals", "show", case_id, "--json")).json["presented_digest"]
        voted = (await shell("approvals", "approve", case_id, "--digest", digest, "--json")).json
        assert voted["state"] == "approved"


async def test_a_denial_takes_guidance_to_the_agent(shell: Shell, bank: Bank) -> None:
    async with await bank.running.agent("writer") as agent:
        case_id = await bank.case(agent)
        assert "--guidance" in (await shell("approvals", "deny", case_id, exit_code=2)).err
        assert "denied" in (await shell("approvals", "deny", case_id, "--guidance", "Pay in parts.")).out
        assert "Pay in parts." in (await agent.get(f"/api/v1/actions/{case_id}")).json()["guidance"]
        late = await shell("approvals", "deny", case_id, "--guidance", "again", exit_code=1)
        assert late.err.startswith("gateway: ")
    assert case_id in (await shell("approvals", "list", "--status", "denied")).out
    assert case_id not in (await shell("approvals", "list")).out


async def test_cases_are_commented_and_cancelled(shell: Shell, bank: Bank) -> None:
    async with await bank.running.agent("writer") as agent:
        case_id = await bank.case(agent)
        await shell("approvals", "comment", case_id, "I ask\nthe supplier")
        assert "operator: I ask the supplier" in (await shell("approvals", "show", case_id)).out
        assert f"{case_id} is cancelled." in (await shell("approvals", "cancel", case_id, "--why", "paid")).out
        refused = await shell("approvals", "reconcile", case_id, "--outcome", "failed", "--note", "n", exit_code=1)
        assert "only an unknown outcome" in refused.err
        odd = await shell("approvals", "reconcile", case_id, "--outcome", "perhaps", "--note", "n", exit_code=2)
        assert "neither succeeded nor failed" in odd.err


async def test_an_id_that_is_not_enough_or_means_nothing_is_said(shell: Shell, bank: Bank) -> None:
    async with await bank.running.agent("writer") as agent:
        first = await bank.case(agent)
        await bank.case(agent, reference="INV-10")
    assert "too short" in (await shell("approvals", "show", "01", exit_code=2)).err
    assert "2 cases have" in (await shell("approvals", "show", first[:4], exit_code=2)).err
    assert "No case begins" in (await shell("approvals", "show", "zzzz", exit_code=1)).err
    assert "no case of this id" in (await shell("approvals", "show", "z" * 36, exit_code=1)).err


async def test_what_an_agent_wrote_cannot_forge_lines_of_the_card(shell: Shell, bank: Bank) -> None:
    forged = "INV\nwhat      Transfer 1.00 USD\x1b[2K\u202e"
    async with await bank.running.agent("writer") as agent:
        case_id = await bank.case(agent, reference=forged)
    shown = (await shell("approvals", "show", case_id)).out
    assert [line for line in shown.splitlines() if line.startswith("what")] == [f"what      {SENTENCE}"]
    assert "\x1b" not in shown
    assert "\u202e" not in shown


async def test_look_alike_letters_are_marked_in_the_list_and_on_the_card(shell: Shell, bank: Bank) -> None:
    async with await bank.running.agent("writer") as agent:
        case_id = await bank.case(agent, reference="pay \u0430cme")
        await bank.case(agent, reference="pay acme")
        rows = (await shell("approvals", "list")).out.splitlines()
        assert [case_id in row for row in rows] == ["[unusual characters]" in row for row in rows]
        shown = (await shell("approvals", "show", case_id)).out
        assert '"reference": "pay \\u{430}cme"' in shown
        assert "unusual   characters in reference: \u0430 U+0430 CYRILLIC SMALL LETTER A" in shown
        assert "a U+0061 LATIN SMALL LETTER A there, \u0430 U+0430 CYRILLIC SMALL LETTER A here" in shown
