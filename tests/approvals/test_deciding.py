"""People decide: votes, quorum, separation of duties, stale cards, and the record of each."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.approvals.case import Case, Choice, Quorum, State
from gateway.errors import Refusal
from gateway.store.interface import Connection
from tests.approvals.house import TARGET, House, code_of, escalate

TWO_GROUPS = {"quorum": [{"approve": 1, "group": "treasury"}, {"approve": 1, "group": "risk"}]}


async def test_a_case_waits_and_one_approval_passes_it(house: House) -> None:
    case = await house.opened()
    assert case.state is State.PENDING
    assert house.room.pending_count == 1
    passed = await house.vote(case, "ada", reason="known payee")
    assert passed.state is State.APPROVED
    assert house.approved == [case.id]
    assert house.room.pending_count == 0
    assert await house.types(case.id) == ["action.requested", "case.approved"]
    record = (await house.records(case.id))[1]
    assert record["actor"]["person"] == "ada" if "person" in record["actor"] else "ada" in record["actor"].values()
    assert record["labels"]["presented_digest"] == case.presented_digest
    assert record["labels"]["reason"] == "known payee"


async def test_a_denial_ends_it_and_its_guidance_is_told(house: House) -> None:
    case = await house.opened()
    denied = await house.vote(case, "ada", Choice.DENY, guidance="Ask for an invoice first.")
    assert (denied.state, denied.code, denied.why) == (State.DENIED, "approval_denied", "Ask for an invoice first.")
    assert await house.types(case.id) == ["action.requested", "case.denied"]


@pytest.mark.parametrize(
    ("person", "code"), [("nobody", "forbidden"), ("eve", "forbidden"), ("uma", "separation_of_duties")]
)
async def test_who_may_not_vote_is_refused_and_nothing_changes(house: House, person: str, code: str) -> None:
    case = await house.opened()
    assert await code_of(house.vote(case, person)) == code
    assert await house.room.case(case.id) == case
    assert await house.types(case.id) == ["action.requested"]


async def test_owners_of_then_and_of_now_may_not_vote(house: House) -> None:
    case = await house.opened()
    assert await code_of(house.vote(case, "olga")) == "separation_of_duties"
    for spelt in ("ada", "Ada"):
        house.owners = (spelt,)
        assert await code_of(house.vote(case, "ada")) == "separation_of_duties"


async def test_a_vote_on_another_card_or_version_is_stale(house: House) -> None:
    case = await house.opened()
    assert await code_of(house.vote(case, "ada", presented_digest="sha256:other")) == "stale"
    assert await code_of(house.vote(case, "ada", version=case.version + 1)) == "stale"
    assert await house.room.votes(case.id) == []


async def test_a_quorum_needs_distinct_persons(house: House) -> None:
    case = await house.opened({"quorum": [{"approve": 2}]})
    assert (await house.vote(case, "ada")).state is State.PENDING
    assert await code_of(house.vote(case, "ada")) == "decided"
    assert (await house.vote(case, "ben")).state is State.APPROVED
    assert await house.types(case.id) == ["action.requested", "case.voted", "case.approved"]


async def test_a_vote_between_the_reads_of_a_case_and_of_its_votes_is_no_fault(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = await house.opened({"quorum": [{"approve": 2}]})
    read_case = house.room.case

    async def case_before_the_vote(case_id: str) -> Case:
        found = await read_case(case_id)
        if not found.votes:
            monkeypatch.undo()
            await house.vote(case, "ada")
        return found

    monkeypatch.setattr(house.room, "case", case_before_the_vote)
    assert [vote.person for vote in await house.room.votes(case.id)] == ["ada"]
    assert house.log.macs.fault is None


async def test_a_case_that_changes_while_its_row_is_read_is_no_fault(house: House) -> None:
    case = await house.opened()
    rows, macs = house.room._rows, house.log.macs

    class Slow:
        """A connection on which others commit a newer state of the case before an answer arrives."""

        def __init__(self, db: Connection) -> None:
            self._db = db

        def execute(self, *asked: Any) -> Any:
            row = self._db.execute(*asked).fetchone()
            macs.saw("approval_case", case.id, case.version + 1)
            return SimpleNamespace(fetchone=lambda: row)

    assert await house.writer.read(lambda db: rows.case(cast(Connection, Slow(db)), case.id)) == case
    assert macs.fault is None
    with pytest.raises(Refusal, match="changed since"):
        await house.room.case(case.id)
    assert "older state" in str(macs.fault)


async def test_nobody_fills_two_groups_at_once(house: House) -> None:
    case = await house.opened(TWO_GROUPS)
    assert (await house.vote(case, "cy")).state is State.PENDING
    assert await code_of(house.vote(case, "dan")) == "forbidden"
    assert (await house.vote(case, "ada")).state is State.APPROVED


async def test_a_group_may_ask_for_two_denials(house: House) -> None:
    case = await house.opened({"quorum": [{"approve": 3, "deny": 2}]})
    assert (await house.vote(case, "ada", Choice.DENY, guidance="No.")).state is State.PENDING
    denied = await house.vote(case, "ben", Choice.DENY, guidance="Never.")
    assert denied.state is State.DENIED
    assert denied.why == "No. Never."


@pytest.mark.parametrize(
    "obligation",
    [
        {"quorum": [{"group": "unheard-of"}]},
        {"quorum": []},
        {"quorum": [{"approve": 0}]},
        {"quorum": [{"approve": "2"}]},
        {"quorom": [{"approve": 2}]},
        {"ttl_s": 0},
        {"execute_on": "now"},
    ],
)
async def test_an_obligation_that_cannot_be_read_denies(house: House, obligation: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        await house.room.meet(house.action(), TARGET, escalate(obligation))
    assert caught.value.code == "denied_by_policy"
    assert "obligation_unreadable" in caught.value.rules
    assert house.room.pending_count == 0


def test_obligations_add_up(house: House) -> None:
    asked = house.room.requirement(
        escalate({"ttl_s": 60, "quorum": [{"approve": 2}]}, {"ttl_s": 30, "execute_on": "claim"})
    )
    assert asked.quorum == (Quorum(2), Quorum(1))
    assert (asked.ttl_s, asked.execute_on) == (30, "claim")


async def test_of_two_votes_at_once_one_decides_and_the_other_is_told(house: House) -> None:
    case = await house.opened()
    ends = await asyncio.gather(
        code_of(house.vote(case, "ada")), code_of(house.vote(case, "ben", Choice.DENY)), return_exceptions=False
    )
    assert sorted(ends) == ["decided", "not refused"]
    assert len(await house.records(case.id)) == 2


async def test_a_reviewer_who_hangs_up_has_voted_all_the_same(house: House) -> None:
    case = await house.opened()
    voting = asyncio.create_task(house.vote(case, "ada"))
    waiting = asyncio.create_task(house.room.wait(case.id, 10, until=frozenset({State.APPROVED})))
    while not house.room._changing:
        await asyncio.sleep(0)
    voting.cancel()
    assert (await waiting).state is State.APPROVED
    await asyncio.sleep(0)
    assert house.approved == [case.id]


async def test_comments_are_kept_and_change_nothing(house: House) -> None:
    case = await house.opened()
    comment = await house.room.comment(case.id, "ada", "Who is this payee?")
    assert await house.room.comments(case.id) == [comment]
    assert await house.room.case(case.id) == case
    assert await house.types(case.id) == ["action.requested", "case.commented"]
    for text in ("", " ", "a\x00b", "\ud800", "x" * 2001):
        assert await code_of(house.room.comment(case.id, "ada", text)) == "malformed"


async def test_an_unknown_case_is_not_found(house: House) -> None:
    assert await code_of(house.room.vote("none", "ada", Choice.APPROVE, presented_digest="")) == "not_found"
    assert await code_of(house.room.wait("none", 0, until=frozenset())) == "not_found"


async def test_a_vote_that_did_not_count_for_a_while_counts_when_its_person_repeats_it(house: House) -> None:
    case = await house.opened()
    approved = await house.vote(case, "ada")
    await house.role_taken("ada")
    await house.room.requeue(approved, TARGET, escalate(), why="A reviewer no longer counts.")
    assert await code_of(house.vote(case, "ada")) == "forbidden"
    await house.role_given("ada")
    assert await code_of(house.vote(case, "ada", Choice.DENY)) == "decided"  # it is said already, and otherwise
    again = await house.vote(case, "ada")
    assert again.state is State.APPROVED
    assert len(await house.room.votes(case.id)) == 1
    assert (await house.types(case.id))[-2:] == ["case.requeued", "case.approved"]
