from __future__ import annotations

import sqlite3
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.actions import Agent
from gateway.audit.check import verify_data_dir
from gateway.errors import Refusal
from gateway.identity import Role, tokens
from gateway.identity.console_site import COOKIE, ConsoleSite
from gateway.identity.now import Now
from gateway.identity.people import LINK_VALID_S, SESSION_VALID_S
from gateway.identity.signed_in import same_origin, signed_in
from gateway.store.interface import Connection

from .conftest import House

SITE = ConsoleSite("http://gw:8080", "gw")
PUBLIC = ConsoleSite("https://pub/x", "pub")


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
    person = house.registry.people.who_bears(first)
    assert person is not None
    assert house.registry.people.who(first) is None
    assert Role.OPERATOR in person.roles
    again = await house.again()
    await again.open_local_door(tmp_path)
    assert again.people.who_bears(first) is None
    assert again.people.who_bears(path.read_text().strip()) == person
    assert await house.recorded("person.") == ["person.added"]


async def test_a_person_is_there_once(house: House) -> None:
    await link(house)
    with pytest.raises(Refusal) as caught:
        await house.registry.people.add("ada", name="Ada", roles=[], by="operator")
    assert caught.value.code == "conflict"


def headers(session: str, site: ConsoleSite = SITE, /, **more: str) -> Mapping[str, str]:
    return {
        "host": site.base.split("/")[2],
        "cookie": f"a=b; {site.cookie}={session}",
        **{k.replace("_", "-"): v for k, v in more.items()},
    }


async def test_a_cookie_reads_but_writes_only_from_our_own_pages(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    assert signed_in(people, "GET", headers(session), SITE).by_cookie
    assert signed_in(people, "POST", headers(session, origin="http://gw:8080"), SITE).person.id == "ada"
    assert signed_in(people, "POST", headers(session, PUBLIC, origin="https://pub"), PUBLIC).person.id == "ada"
    through_a_tunnel = headers(session, host="gw:9", origin="http://gw:9")
    assert signed_in(people, "POST", through_a_tunnel, SITE).person.id == "ada"
    for bad in (
        {},
        {"origin": "http://evil"},
        {"origin": "null"},
        {"origin": "http://gw:8080.evil"},
        {"origin": "http://gw:9999"},
        {"origin": "https://pub"},
        {"origin": "http://gw:8080", "sec_fetch_site": "same-site"},
        {"origin": "http://gw:8080", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "none"},
    ):
        with pytest.raises(Refusal) as caught:
            signed_in(people, "POST", headers(session, **bad), SITE)
        assert caught.value.code == "forbidden"


async def test_a_cookie_counts_only_under_the_consoles_own_host(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    for site, host in ((SITE, "127.0.0.1:8080"), (SITE, "localhost"), (SITE, "gw.evil"), (SITE, ""), (PUBLIC, "gw")):
        with pytest.raises(Refusal) as caught:
            signed_in(people, "GET", headers(session, site, host=host), site)
        assert caught.value.code == "unauthenticated"
    with pytest.raises(Refusal):  # a cookie that another host of the domain may have set
        signed_in(people, "GET", headers(session, SITE, host="pub"), PUBLIC)


async def test_a_page_elsewhere_cannot_read_with_the_cookie_but_links_work(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    for site in ("same-site", "cross-site"):
        for mode, dest in (("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe")):
            fetch = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": dest}
            with pytest.raises(Refusal) as caught:
                signed_in(people, "GET", headers(session, **fetch), SITE)
            assert caught.value.code == "forbidden"
        linked = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
        assert signed_in(people, "GET", headers(session, **linked), SITE).person.id == "ada"


async def test_a_cookies_secret_is_no_bearer_token_and_a_token_is_no_cookie(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    token, _ = await people.make_token("ada", by="operator")
    for registry in (people, (await house.again()).people):
        assert signed_in(registry, "POST", {"authorization": f"Bearer {token}"}, SITE).person.id == "ada"
        for wrong in ({"authorization": f"Bearer {session}"}, headers(token)):
            with pytest.raises(Refusal) as caught:
                signed_in(registry, "GET", wrong, SITE)
            assert caught.value.code == "unauthenticated"


async def test_the_cookie_of_an_older_version_signs_in_and_is_no_bearer_token_either(house: House) -> None:
    """Before, a session's secret had the local operator's prefix and passed as a bearer token with all roles."""
    secret = "agp_" + "x" * 43
    await link(house)
    made_ns = house.clock.now_ns()

    def insert(db: Connection) -> None:
        """As the upgrade left it: rows of older versions get their codes there."""
        house.log.macs.insert(
            db,
            "console_session",
            token_sha256=tokens.digest(secret),
            person_id="ada",
            created_ns=made_ns,
            expires_ns=made_ns + 60 * 10**9,
        )

    await house.writer.write(insert)
    people = (await house.again()).people
    assert signed_in(people, "GET", headers(secret), SITE).person.id == "ada"
    with pytest.raises(Refusal):
        signed_in(people, "GET", {"authorization": f"Bearer {secret}"}, SITE)


async def test_tokens_end_by_time_by_revoking_and_with_their_person(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    late, made = await people.make_token("ada", by="operator", valid_s=60)
    revoked, other = await people.make_token("ada", by="operator")
    last, _ = await people.make_token("ada", by="operator")
    assert {one.is_token for one in people.sessions("ada")} == {True, False}
    assert len(people.sessions()) == 4
    assert people.sessions("operator") == []
    with pytest.raises(Refusal):
        await people.revoke(other.id, by="eve", only_of="eve")
    assert await people.revoke(other.id, by="operator") == other
    house.clock.advance(60)
    for registry in (people, (await house.again()).people):
        assert registry.who_bears(late) is registry.who_bears(revoked) is None
        assert registry.who_bears(last) is not None
        assert {made.id, other.id}.isdisjoint(one.id for one in registry.sessions())
    await people.remove("ada", by="operator")
    for registry in (people, (await house.again()).people):
        assert registry.who_bears(last) is registry.who(session) is None
        assert registry.sessions() == []
    kinds = await house.recorded("person.")
    assert (kinds.count("person.token_made"), kinds.count("person.session_revoked")) == (3, 1)


def test_a_request_without_host_or_origin_has_no_origin() -> None:
    assert not same_origin({"origin": ""}, SITE)
    assert not same_origin({}, SITE)


async def test_a_bearer_token_needs_no_origin_and_beats_the_cookie(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    token, _ = await people.make_token("ada", by="operator")
    found = signed_in(people, "POST", {"authorization": f"Bearer {token}"}, SITE)
    assert (found.person.id, found.by_cookie) == ("ada", False)
    with pytest.raises(Refusal) as caught:
        signed_in(people, "GET", {**headers(session), "authorization": "Bearer agw_" + "x" * 43}, SITE)
    assert caught.value.code == "unauthenticated"
    assert "agent" in caught.value.message


@pytest.mark.parametrize("cookie", ["", "x", f"{COOKIE}=", f"{COOKIE}=nope", f"{COOKIE}=a; \x00;;=", '"'])
async def test_odd_cookies_are_nobody(house: House, cookie: str) -> None:
    with pytest.raises(Refusal) as caught:
        signed_in(house.registry.people, "GET", {"host": "gw", "cookie": cookie}, SITE)
    assert caught.value.code == "unauthenticated"


async def test_a_role_is_asked_for_by_name(house: House) -> None:
    people = house.registry.people
    _, session, _ = await people.sign_in(await link(house))
    who = signed_in(people, "GET", headers(session), SITE)
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
    assert durable is not None
    assert (durable.reviewer, durable.groups) == (True, ("risk", "treasury"))
    ((what, makers, _),) = durable.given
    assert (what, makers) == ("person", ("operator",))


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
