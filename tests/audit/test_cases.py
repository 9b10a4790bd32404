"""Cases in the trail: who stands in their records, what is found by a case, and rows that contradict the records."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.actions import Reservation, Result, Status
from gateway.approvals.case import Choice, Note, State
from gateway.audit.check import verify_data_dir
from gateway.audit.view import Filter
from gateway.errors import Refusal
from gateway.store.interface import Connection
from tests.approvals.house import TARGET, House, escalate


async def started(folder: Path) -> House:
    house = House(folder)
    await house.start()
    return house


async def voted(house: House) -> str:
    """A case that ada approved; its id."""
    met = await house.room.meet(house.action(), TARGET, escalate({}))
    assert met is not None
    case = met.case
    await house.room.comment(case.id, "ben", "Looks right.")
    await house.room.vote(case.id, "ada", Choice.APPROVE, presented_digest=case.presented_digest)
    return case.id


async def test_a_persons_record_on_a_case_tells_of_the_agent_and_is_found_by_both(tmp_path: Path) -> None:
    house = await started(tmp_path)
    case = await voted(house)
    found = (await house.log.query(Filter(case=case))).records
    assert [one["type"] for one in found] == ["case.approved", "case.commented", "action.requested"]
    approved, commented, requested = found
    assert approved["actor"] == {"agent": None, "version": None, "user": "ada", "authn": "person"}
    assert (approved["labels"]["agent"], approved["action"]["tool"]) == ("payer", "transfer")
    assert commented["actor"]["user"] == "ben"
    assert (requested["actor"]["agent"], requested["case"]) == ("payer", case)
    assert len((await house.log.query(Filter(case=case, agent="payer"))).records) == 3
    assert (await house.log.query(Filter(case="another"))).records == []
    await house.stop()


async def test_what_the_gateway_does_to_a_case_has_the_agent_as_actor(tmp_path: Path) -> None:
    house = await started(tmp_path)
    met = await house.room.meet(house.action(), TARGET, escalate({"ttl_s": 60}))
    assert met is not None
    house.clock.advance(61)
    await house.room.tick()
    (expired,) = (await house.log.query(Filter(case=met.case.id, type="case.*"))).records
    assert (expired["type"], expired["actor"]["agent"]) == ("case.expired", "payer")
    await house.stop()


async def test_a_case_is_shown_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    house = await started(tmp_path)
    case = await voted(house)
    again = house.action()
    refusal = Refusal("approval_required", "Wait.", detail={"case": case})
    house.trail.refused(again, TARGET, escalate({}), refusal)
    shown = await house.log.show(case, disclose=False)
    assert shown.record["type"] == "action.requested"
    assert [one["type"] for one in shown.related] == ["case.commented", "case.approved", "action.refused"]
    assert (await house.log.show(again.id, disclose=False)).record["case"] == case
    await house.stop()


async def test_a_transition_that_is_refused_leaves_neither_change_nor_record(tmp_path: Path) -> None:
    house = await started(tmp_path)
    case = await house.room.case(await voted(house))
    size = house.log.size

    def change(db: Connection) -> Note:
        db.execute("UPDATE approval_case SET state = 'denied'")
        raise Refusal("decided", "Somebody was faster.")

    with pytest.raises(Refusal) as caught:
        await house.trail.case(case, change, person="ada")
    assert (caught.value.code, house.log.size) == ("decided", size)
    assert (await house.room.case(case.id)).state is State.APPROVED
    await house.stop()


async def test_an_intent_whose_case_was_taken_by_another_is_not_recorded(tmp_path: Path) -> None:
    house = await started(tmp_path)
    case = await house.room.case(await voted(house))
    held = Reservation(id=case.action.id, nanousd=0, tokens=0, levels=())
    size = house.log.size

    def taken(db: Connection) -> None:
        raise Refusal("decided", "Somebody was faster.")

    with pytest.raises(Refusal):
        await house.trail.intent(case.action, TARGET, escalate({}), held, (), also=taken, case=case.id)
    assert house.log.size == size
    assert house.log.open_intents == 0
    begin = house.room.begin(case, case.requirement)
    await house.trail.intent(case.action, TARGET, escalate({}), held, (), also=begin, case=case.id)
    ended = Result(status=Status.SUCCEEDED, latency_us=1)
    await house.trail.ended(case.action, TARGET, escalate({}), ended, lambda db: None, case.id)
    found = (await house.log.query(Filter(case=case.id, action=case.action.id, type="action.*"))).records
    assert [one["type"] for one in found] == ["action.result", "action.intent", "action.requested"]
    await house.stop()


async def test_an_attempt_that_a_crash_left_open_ends_as_part_of_its_case_and_verifies(tmp_path: Path) -> None:
    house = await started(tmp_path)
    case = await house.room.case(await voted(house))
    held = Reservation(id=case.action.id, nanousd=0, tokens=0, levels=())
    begin = house.room.begin(case, case.requirement)
    await house.trail.intent(case.action, TARGET, escalate({}), held, (), also=begin, case=case.id)
    await house.restart()
    found = (await house.log.query(Filter(case=case.id, limit=2))).records
    assert [one["type"] for one in found] == ["case.unknown", "action.result"]
    await house.stop()
    assert verify_cases(tmp_path) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE approval_case SET state = 'pending'", "is pending, but on record it is approved"),
        ("UPDATE approval_case SET state = 'succeeded'", "is succeeded, but on record it is approved"),
        ("UPDATE approval_case SET agent = 'other'", "has another agent than recorded"),
        ("UPDATE approval_case SET user = 'other', tool = 'other'", "has another tool and user than recorded"),
        ("UPDATE approval_case SET presented_digest = 'sha256:x'", "was shown otherwise"),
        ("UPDATE approval_case SET requirement = '{}'", "asks for other people, than recorded"),
        ("UPDATE approval_case SET open = 0", "but not open"),
        ("UPDATE approval_case SET fence = 7", "0 attempts and the fence 7, but 0 are on record"),
        (
            "INSERT INTO case_attempt SELECT id, 1, 1, NULL, NULL, NULL, '', NULL FROM approval_case",
            "1 attempts and the fence 0",
        ),
        ("UPDATE case_vote SET person = 'rob'", "is not on record as it stands there"),
        ("UPDATE case_vote SET choice = 'deny'", "is not on record as it stands there"),
        ("DELETE FROM case_vote", "is on record, but is not there"),
        (
            "INSERT INTO case_vote SELECT 'x', case_id, 'rob', choice, presented_digest, '', '', 1, NULL, NULL FROM case_vote",
            "the vote x is not on record",
        ),
        ("UPDATE approval_case SET id = 'made-up'", "no record says that it was opened"),
        ("DELETE FROM approval_case", "is on record, but is not there"),
    ],
)
async def test_a_case_that_contradicts_its_records_is_told(tmp_path: Path, statement: str, said: str) -> None:
    house = await started(tmp_path)
    await voted(house)
    await house.stop()
    assert verify_cases(tmp_path) == []
    connection = sqlite3.connect(tmp_path / "gateway.db")
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert any(said in message for message in verify_cases(tmp_path))


def verify_cases(folder: Path) -> list[str]:
    """What is found of cases; the people of this house were put there without a record."""
    report = verify_data_dir(folder)
    assert {finding.code for finding in report.findings} <= {"register_altered", "case_altered", "row_altered"}
    return [finding.message for finding in report.findings if finding.code == "case_altered"]
