from __future__ import annotations

import sqlite3
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.actions import Agent
from gateway.audit.check import verify_data_dir
from gateway.errors import Refusal
from gateway.identity import Role
from gateway.identity.now import Now
from gateway.identity.people import LINK_VALID_S, SESSION_VALID_S
from gateway.identity.signed_in import COOKIE, same_origin, signed_in

from .conftest import House


async def link(house: House, person: str = "ada") -> str:
    people = house.registry.people
    if person not in {one.id for one in people.all()}:
        await people.add(person, name=person.title(), roles=[Role.AUDITOR], by="operator")
    secret, _ = await people.make_link(person, by="operator")
    return secret


async def test_a_link_signs_in_once(house: House) -> None:
    secret = await link(house)
    person, session, _ = await house.registry.people.sign_in(secret)
    assert house.registry.people.who(session) == person
    for registry in (house.registry, await house.again()):
        with pytest.raises(Refusal) as caught:
            await registry.people.sign_in(secret)
        assert caught.value.code == "unauthenticated"
    assert await house.recorded("person.") == ["person.added", "person.link_made", "person.signed_in"]


async def test_of_two_processes_with_the_same_link_one_wins(house: House) -> None:
    secret = await link(house)
    other = await house.again()
    await house.registry.people.sign_in(secret)
    with pytest.raises(Refusal) as caught:
        await other.people.sign_in(secret)
    assert caught.value.code == "unauthenticated"
    assert len(await house.rows("SELECT * FROM console_session")) == 1


async def test_links_and_sessions_end(house: House) -> None:
    old = await link(house)
    _, session, _ = await house.registry.people.sign_in(await link(house))
    house.clock.advance(LINK_VALID_S)
    with pytest.raises(Refusal):
        await house.registry.people.sign_in(old)
    assert house.registry.people.who(session) is not None
    house.clock.advance(SESSION_VALID_S - LINK_VALID_S)
    assert house.registry.people.who(session) is None


async def test_a_session_survives_a_restart_and_ends_at_sign_out(house: House) -> None:
    _, session, _ = await house.registry.people.sign_in(await link(house))
    again = await house.again()
    assert again.people.who(session) is not None
    await house.registry.people.sign_out(session)
    assert house.registry.people.who(session) is None
    assert (await house.again()).people.who(session) is None


async def test_removing_a_person_ends_their_sessions_and_links(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    unused = await link(house)
    await people.remove("ada", by="operator")
    for registry in (house.registry, await house.again()):
        assert registry.people.who(session) is None
        with pytest.raises(Refusal):
            await registry.people.sign_in(unused)
        assert registry.people.all() == []


async def test_the_local_operator_cannot_be_removed(house: House) -> None:
    await house.registry.people.ensure_local_operator()
    with pytest.raises(Refusal) as caught:
        await house.registry.people.remove("operator", by="operator")
    assert caught.value.code == "conflict"


async def test_the_local_token_is_new_at_each_start_and_for_its_owner_only(house: House, tmp_path: Path) -> None:
    await house.registry.open_local_door(tmp_path)
    path = tmp_path / "operator.token"
    first = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    person = house.registry.people.who(first)
    assert person is not None
    assert Role.OPERATOR in person.roles
    again = await house.again()
    await again.open_local_door(tmp_path)
    assert again.people.who(first) is None
    assert again.people.who(path.read_text().strip()) == person
    assert await house.recorded("person.") == ["person.added"]


async def test_a_person_is_there_once(house: House) -> None:
    await link(house)
    with pytest.raises(Refusal) as caught:
        await house.registry.people.add("ada", name="Ada", roles=[], by="operator")
    assert caught.value.code == "conflict"


def headers(session: str, **more: str) -> Mapping[str, str]:
    return {
        "host": "gw:8080",
        "cookie": f"a=b; {COOKIE}={session}",
        **{k.replace("_", "-"): v for k, v in more.items()},
    }


async def test_a_cookie_reads_but_writes_only_from_our_own_pages(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    assert signed_in(people, "GET", headers(session), None).by_cookie
    assert signed_in(people, "POST", headers(session, origin="http://gw:8080"), None).person.id == "ada"
    assert signed_in(people, "POST", headers(session, origin="https://pub"), "https://pub/x").person.id == "ada"
    for bad in (
        {},
        {"origin": "http://evil"},
        {"origin": "null"},
        {"origin": "http://gw:8080.evil"},
        {"origin": "http://gw:8080", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "none"},
    ):
        with pytest.raises(Refusal) as caught:
            signed_in(people, "POST", headers(session, **bad), "https://pub/x")
        assert caught.value.code == "forbidden"


def test_a_request_without_host_or_origin_has_no_origin() -> None:
    assert not same_origin({"origin": ""}, None)
    assert not same_origin({}, None)


async def test_a_bearer_token_needs_no_origin_and_beats_the_cookie(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    found = signed_in(people, "POST", {"authorization": f"Bearer {session}"}, None)
    assert (found.person.id, found.by_cookie) == ("ada", False)
    with pytest.raises(Refusal) as caught:
        signed_in(people, "GET", {**headers(session), "authorization": "Bearer agw_" + "x" * 43}, None)
    assert caught.value.code == "unauthenticated"
    assert "agent" in caught.value.message


@pytest.mark.parametrize("cookie", ["", "x", f"{COOKIE}=", f"{COOKIE}=nope", f"{COOKIE}=a; \x00;;=", '"'])
async def test_odd_cookies_are_nobody(house: House, cookie: str) -> None:
    with pytest.raises(Refusal) as caught:
        signed_in(house.registry.people, "GET", {"cookie": cookie}, None)
    assert caught.value.code == "unauthenticated"


async def test_a_role_is_asked_for_by_name(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    who = signed_in(people, "GET", headers(session), None)
    who.require(Role.AUDITOR, Role.OPERATOR)
    with pytest.raises(Refusal) as caught:
        who.require(Role.OPERATOR)
    assert caught.value.code == "forbidden"
    assert "operator" in caught.value.message


async def test_what_a_person_may_decide_is_known_at_once_and_after_a_restart(house: House) -> None:
    people = house.registry.people
    assert people.standing("olga") is None
    await people.add("olga", name="Olga", roles=[Role.REVIEWER], groups=["treasury", "risk"], by="operator")
    await people.add("ada", name="Ada", roles=[Role.AUDITOR], groups=["risk"], by="operator")
    for known in (people, (await house.again()).people):
        olga, ada = known.standing("olga"), known.standing("ada")
        assert olga is not None
        assert ada is not None
        assert (olga.reviewer, olga.groups) == (True, ("risk", "treasury"))
        assert (ada.reviewer, ada.groups) == (False, ("risk",))
    durable = await house.writer.read(lambda db: Now(house.log.macs).standing(db, "olga"))
    assert durable == (True, ("risk", "treasury"))


async def test_a_change_of_a_person_is_recorded_and_leaves_what_was_not_named(house: House) -> None:
    people = house.registry.people
    await people.add("olga", name="Olga", roles=[Role.REVIEWER], groups=["treasury"], by="operator")
    changed = await people.update("olga", groups=[], by="operator")
    assert (changed.name, changed.roles, changed.groups) == ("Olga", (Role.REVIEWER,), ())
    assert not (await people.update("olga", roles=[Role.AUDITOR], by="operator")).reviewer
    assert (await house.again()).people.standing("olga") == people.standing("olga")
    assert await house.recorded("person.") == ["person.added", "person.changed", "person.changed"]
    with pytest.raises(Refusal) as caught:
        await people.update("nobody", groups=["risk"], by="operator")
    assert caught.value.code == "not_found"


async def test_who_was_removed_decides_nothing(house: House) -> None:
    people = house.registry.people
    await people.add("olga", name="Olga", roles=[Role.REVIEWER], groups=["treasury"], by="operator")
    await people.remove("olga", by="operator")
    assert people.standing("olga") is None
    assert await house.writer.read(lambda db: Now(house.log.macs).standing(db, "olga")) is None


async def test_the_local_operator_stays_an_operator(house: House) -> None:
    await house.registry.people.ensure_local_operator()
    with pytest.raises(Refusal) as caught:
        await house.registry.people.update("operator", roles=[Role.REVIEWER], by="operator")
    assert caught.value.code == "conflict"


@pytest.mark.parametrize("column", ["roles", "groups"])
async def test_verify_tells_of_a_role_or_a_group_that_was_given_behind_the_gateway(
    house: House, tmp_path: Path, column: str
) -> None:
    await house.registry.people.add("olga", name="Olga", roles=[Role.REVIEWER], groups=["risk"], by="operator")
    assert not verify_data_dir(tmp_path).findings
    connection = sqlite3.connect(tmp_path / "gateway.db")
    connection.execute(f"UPDATE person SET {column} = '[\"operator\"]'")
    connection.commit()
    connection.close()
    (found,) = verify_data_dir(tmp_path).findings
    assert found.code == "register_altered"
    assert column in found.message


async def test_a_removed_or_suspended_agent_is_not_active(house: House) -> None:
    agents = house.registry.agents
    await agents.declare([Agent(id="reader"), Agent(id="payer")])
    await agents.suspend("payer", person="operator", reason="")
    active = await house.writer.read(
        lambda db: [Now(house.log.macs).is_active(db, one) for one in ("reader", "payer", "nobody")]
    )
    assert active == [True, False, False]
    await agents.declare([])
    assert not await house.writer.read(lambda db: Now(house.log.macs).is_active(db, "reader"))
