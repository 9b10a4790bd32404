"""An action meets its case: attach, told-again windows, idempotency keys, the flood guard, restarts, sealing."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.actions import Kind
from gateway.approvals import Sealing
from gateway.approvals.case import Choice, State
from gateway.errors import Refusal
from tests.approvals.house import ALLOW, TARGET, House, code_of, escalate


async def test_identical_calls_share_one_case_and_changed_arguments_do_not(house: House) -> None:
    mets = await asyncio.gather(*(house.meet() for _ in range(5)))
    assert len({met.case.id for met in mets}) == 1
    assert [met.opened for met in mets].count(True) == 1
    other = await house.opened(arguments={"to": "acme-secret-payee", "amount": 501})
    assert other.id != mets[0].case.id
    assert [case.id for case in await house.room.like(other)] == [mets[0].case.id]


async def test_the_session_is_no_part_of_the_identity_but_the_user_is(house: House) -> None:
    first = await house.opened()
    assert (await house.opened(user="uma")).id == first.id
    assert (await house.opened(user="vic")).id != first.id


async def test_an_end_is_told_again_until_its_window_closes(house: House) -> None:
    case = await house.vote(await house.opened(), "ada", Choice.DENY)
    again = await house.meet()
    assert (again.case.id, again.opened, again.ended_before) == (case.id, False, True)
    assert house.room.concerns(house.action())
    house.clock.advance(house.settings.replay_s + 1)
    assert not house.room.concerns(house.action())
    assert (await house.meet()).opened


async def test_a_cancelled_case_makes_room_at_once(house: House) -> None:
    case = await house.opened()
    cancelled = await house.room.cancel(case.id, by="payer", why="not needed", person=False)
    assert (cancelled.state, cancelled.told_until_ns) == (State.CANCELLED, None)
    assert not house.room.concerns(house.action())
    newer = await house.meet()
    assert newer.opened
    await house.room.comment(case.id, "ada", "late remark on the old one")
    assert house.room.concerns(house.action())


async def test_an_idempotency_key_stands_for_one_call(house: House) -> None:
    case = await house.opened(idempotency_key="k1")
    other = house.action(idempotency_key="k1", arguments={"to": "x", "amount": 1})
    assert house.room.concerns(other)
    with pytest.raises(Refusal) as caught:
        await house.meet(other)
    assert (caught.value.code, caught.value.detail["case"]) == ("conflict", case.id)
    assert (await house.meet(house.action(idempotency_key="k1"))).case.id == case.id
    elsewhere = house.action(user="vic", idempotency_key="k1", arguments={"to": "x", "amount": 1})
    assert (await house.meet(elsewhere)).opened


async def test_two_calls_at_once_under_one_key_do_not_both_open(house: House) -> None:
    calls = [house.action(idempotency_key="k", arguments={"amount": n}) for n in (1, 2)]
    ends = await asyncio.gather(*(code_of(house.meet(call)) for call in calls))
    assert sorted(ends) == ["conflict", "not refused"]


async def test_an_agent_cannot_flood_reviewers(house: House) -> None:
    house.room.reconfigure(house.settings.model_copy(update={"pending_per_agent": 3}))
    calls = [house.action(arguments={"amount": n}) for n in range(6)]
    ends = await asyncio.gather(*(code_of(house.meet(call)) for call in calls))
    assert ends.count("rate_limited") == 3
    assert house.room.pending_count == 3
    refused = calls[ends.index("rate_limited")]
    assert not house.room.concerns(refused)


async def test_where_policy_allows_now_a_waiting_case_passes(house: House) -> None:
    case = await house.opened()
    met = await house.room.meet(house.action(), TARGET, ALLOW)
    assert met is not None
    assert (met.case.id, met.case.state) == (case.id, State.APPROVED)
    assert (await house.records(case.id))[-1]["labels"]["by"] == "policy"
    assert await house.room.meet(house.action(arguments={"amount": 1}), TARGET, ALLOW) is None


async def test_a_restart_forgets_nothing(house: House) -> None:
    case = await house.opened(idempotency_key="k1")
    denied = await house.vote(await house.opened(arguments={"amount": 9}), "ada", Choice.DENY)
    model = house.action(kind=Kind.MODEL_INVOKE, target="demo", body=b"{}")
    await house.room.keep_answer(model, model.id, b"paid for", stream=True)
    await house.restart()
    assert house.room.pending_count == 1
    assert house.room.concerns(house.action())
    assert house.room.concerns(house.action(idempotency_key="k1", arguments={"amount": 77}))
    assert house.room.concerns(house.action(arguments={"amount": 9}))
    assert not house.room.concerns(house.action(arguments={"amount": 8}))
    assert await house.room.case(case.id) == case
    assert await house.room.case(denied.id) == denied
    assert house.room.has_answer(model.digest)
    kept = await house.room.kept_answer(model)
    assert kept is not None
    assert (kept.body, kept.stream) == (b"paid for", True)


async def test_nothing_that_was_asked_or_answered_is_readable_in_the_database(house: House) -> None:
    case = await house.done()
    assert case.state is State.SUCCEEDED
    model = house.action(kind=Kind.MODEL_INVOKE, target="demo")
    await house.room.keep_answer(model, model.id, b"the-answer-in-clear", stream=False)
    ending = await house.room.ending(case)
    assert ending is not None
    assert ending.body == b'{"ok":1}'
    await house.stop()
    whole = b"".join(path.read_bytes() for path in house.folder.glob("gateway.db*"))
    for secret in (b"acme-secret-payee", b'{"ok":1}', b"the-answer-in-clear"):
        assert secret not in whole
    await house.start()


def test_a_sealed_value_fits_its_place_only_and_the_key_is_closed_to_others(tmp_path: Path) -> None:
    sealing = Sealing.open(tmp_path / "keys")
    key = tmp_path / "keys" / "approvals.key"
    assert key.stat().st_mode & 0o777 == 0o600
    sealed = sealing.seal(b"x", "case-1/asked")
    assert Sealing.open(tmp_path / "keys").unseal(sealed, "case-1/asked") == b"x"
    with pytest.raises(Refusal, match="can't be opened"):
        sealing.unseal(sealed, "case-2/asked")
    key.write_bytes(b"short")
    with pytest.raises(Refusal, match="not a key"):
        Sealing.open(tmp_path / "keys")


async def test_another_key_file_is_told_at_the_start(house: House) -> None:
    await house.opened()
    await house.stop()
    key = house.folder / "keys" / "approvals.key"
    had = key.read_bytes()
    key.write_bytes(b"k" * 32)
    with pytest.raises(Refusal, match="restore both"):
        await house.start()
    key.write_bytes(had)
    await house.restart()


async def test_an_answer_is_kept_for_the_whole_request_not_its_head(house: House) -> None:
    asked = house.action(kind=Kind.MODEL_INVOKE, target="demo", body=b'{"messages":[1]}')
    await house.room.keep_answer(asked, asked.id, b"one", stream=False)
    other = house.action(kind=Kind.MODEL_INVOKE, target="demo", body=b'{"messages":[2]}')
    assert other.digest == asked.digest
    assert await house.room.kept_answer(other) is None


async def test_a_kept_answer_stays_while_one_of_its_proposals_waits(house: House) -> None:
    model = house.action(kind=Kind.MODEL_INVOKE, target="demo", body=b"{}")
    proposals = [house.action(kind=Kind.TOOL_PROPOSE, parent=model.id, arguments={"n": n}) for n in (1, 2)]
    day = {"ttl_s": 86_400}
    one, two = [(await house.meet(proposal, day)).case for proposal in proposals]
    await house.room.keep_answer(model, model.id, b"both", stream=False)
    await house.vote(one, "ada", Choice.DENY)
    house.clock.advance(80_000)
    await house.room.tick()
    assert await house.room.kept_answer(model) is not None
    two = await house.vote(two, "ada")
    house.clock.advance(80_000)
    await house.room.tick()
    assert await house.room.kept_answer(model) is not None
    await house.room.release(two, proposals[1], TARGET, escalate(day), two.requirement, model.id)
    house.clock.advance(house.settings.replay_s + 1)
    await house.room.tick()
    assert await house.room.kept_answer(model) is None
    rows = await house.writer.read(lambda db: db.execute("SELECT count(*) FROM kept_answer").fetchone()[0])
    assert rows == 0


async def test_lists_are_filtered_and_paged(house: House) -> None:
    cases = []
    for n in range(5):
        house.clock.advance(1)
        cases.append(await house.opened(arguments={"amount": n}))
    await house.vote(cases[0], "ada")
    newest = [case.id for case in reversed(cases)]
    page = await house.room.find(limit=3)
    assert [case.id for case in page.cases] == newest[:3]
    rest = await house.room.find(limit=3, cursor=page.cursor)
    assert ([case.id for case in rest.cases], rest.cursor) == (newest[3:], None)
    assert len((await house.room.find(status="open")).cases) == 5
    assert [case.id for case in (await house.room.find(status="approved")).cases] == [cases[0].id]
    assert len((await house.room.find(agent="payer", tool="ledger__transfer", rule="large", risk="high")).cases) == 5
    assert (await house.room.find(rule="larg")).cases == []
    with pytest.raises(Refusal, match=re.escape("There is no state 'odd'")):
        await house.room.find(status="odd")
