"""Invariant 5 where one person acts through others: whoever makes a sign-in can use it, and whoever adds reviewers decides
who votes. What comes through the hands of one maker fills one place of a quorum, and none where the maker decides too or
is a party.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.app import App
from gateway.identity import Role
from tests.bank_house import Bank
from tests.footing import placed_and_signed
from tests.gateway_house import use_link
from tests.intruder import Intruder
from tests.invariants.counter import API, Counter, refused
from tests.invariants.test_5_reconcile_apart import NOT_DONE, say, unknown

TWO = '{"quorum": [{"approve": 2}], "execute_on": "claim"}'
REVIEWERS = ("ruth", "rosa", "rene")


@pytest.fixture
async def counter(bank: Bank) -> AsyncIterator[Counter]:
    counter = Counter(bank)
    await counter.configure()
    for person in REVIEWERS:
        await counter.people.add(person, name=person, roles=[Role.REVIEWER], by="operator")
    yield counter
    await counter.verified()


async def linked(counter: Counter, person: str, maker: httpx.AsyncClient) -> httpx.AsyncClient:
    """The browser of a person who uses a link that `maker` made, through the API as anybody would."""
    made = await maker.post("/api/v1/sign-in", json={"person": person})
    assert made.status_code == 201, made.text
    browser = counter.bank.running.client(origin="http://gateway.test")
    token = made.json()["url"].partition("token=")[2]
    assert (await use_link(browser, token)).status_code == 303
    return browser


async def why(counter: Counter, reader: httpx.AsyncClient, case_id: str) -> dict[str, str]:
    """Why votes fill no place of their own, by person."""
    return {one["person"]: one["no_place"] for one in (await counter.shown(reader, case_id))["votes"]}


async def test_what_one_maker_made_for_others_fills_one_place(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    async with counter.bank.running.operator() as operator:
        ruth, rosa = await linked(counter, "ruth", operator), await linked(counter, "rosa", operator)
    assert await counter.approve(ruth, case_id) == "pending"
    assert await counter.approve(rosa, case_id) == "pending"
    shown = await counter.shown(rita, case_id)
    assert shown["quorum"][0]["approved"] == 1
    assert [(one["person"], one["makers"]) for one in shown["votes"]] == [
        ("ruth", ["operator"]),
        ("rosa", ["operator"]),
    ]
    told = await why(counter, rita, case_id)
    assert (told["ruth"], "together with ruth: operator made" in told["rosa"]) == ("", True)
    voted = await counter.last(case_id, "case.voted")
    assert (voted["actor"]["user"], voted["labels"]["makers"]) == ("rosa", "operator")
    assert await counter.approve(rita, case_id) == "approved"


@pytest.mark.parametrize("first", ["maker", "made"])
async def test_a_maker_who_votes_takes_the_place_away_before_or_after(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, first: str
) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    async with counter.bank.running.operator() as operator:
        ruth = await linked(counter, "ruth", operator)
        for person in (operator, ruth) if first == "maker" else (ruth, operator):
            assert await counter.approve(person, case_id) == "pending"
        assert "operator made their sign-in, and decides too" in (await why(counter, rita, case_id))["ruth"]
        assert await counter.approve(rita, case_id) == "approved"  # with the operator's own


async def test_a_maker_who_is_a_party_fills_no_place_through_others(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    case_id = await counter.bank.case(agent)
    async with await counter.bank.reviewer("dana", Role.OPERATOR) as dana:  # owns the agent
        ruth = await linked(counter, "ruth", dana)
        shown = await counter.shown(ruth, case_id)
        assert "dana made their sign-in, and owns the agent" in shown["no_place"]
        assert await counter.approve(ruth, case_id) == "pending"
    assert counter.bank.transfers() == 0
    assert await counter.approve(rita, case_id) == "approved"


async def test_the_maker_is_inherited_through_whatever_sessions_make(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    await counter.asks(TWO)
    await counter.people.add("opal", name="Opal", roles=[Role.OPERATOR], by="operator")
    case_id = await counter.bank.case(agent)
    running = counter.bank.running
    async with running.operator() as operator:
        ruth = await linked(counter, "ruth", operator)
        again = await linked(counter, "ruth", ruth)  # one that she makes herself
        token = (await again.post("/api/v1/tokens", json={})).json()
        opal = await linked(counter, "opal", operator)
        rosa = await linked(counter, "rosa", opal)  # through another operator's session
    assert token["makers"] == ["operator"]
    assert await counter.approve(running.client(token["token"]), case_id) == "pending"
    assert await counter.approve(rosa, case_id) == "pending"
    assert "together with ruth: operator" in (await why(counter, rita, case_id))["rosa"]
    sessions = {(one["person"], tuple(one["makers"])) for one in (await opal.get("/api/v1/sessions")).json()}
    assert ("rosa", ("opal", "operator")) in sessions


async def test_one_place_of_one_is_filled_through_a_link_of_somebody_who_stays_out_of_it(
    counter: Counter, agent: httpx.AsyncClient
) -> None:
    case_id = await counter.bank.case(agent)
    async with counter.bank.running.operator() as operator:
        ruth = await linked(counter, "ruth", operator)
    assert await counter.approve(ruth, case_id) == "approved"
    assert "result" in await counter.call(agent)


async def test_a_denial_counts_whoever_made_the_session(counter: Counter, agent: httpx.AsyncClient) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    async with counter.bank.running.operator() as operator:
        ruth = await linked(counter, "ruth", operator)
        assert await counter.approve(operator, case_id) == "pending"
    assert (await counter.vote(ruth, case_id, "deny")).json()["state"] == "denied"


GIVEN: dict[str, dict[str, Any]] = {
    "person": {},
    "role": {"roles": ["reviewer"]},
    "group": {"groups": ["treasury"]},
}


@pytest.mark.parametrize("what", GIVEN)
async def test_who_was_added_since_the_case_opened_is_the_adders_hand(
    counter: Counter, agent: httpx.AsyncClient, what: str
) -> None:
    await counter.asks('{"quorum": [{"approve": 2, "group": "treasury"}], "execute_on": "claim"}')
    groups = ["treasury"] if what != "group" else []
    if what != "person":
        roles = [Role.AUDITOR] if what == "role" else [Role.REVIEWER]
        await counter.people.add("zoe", name="Zoe", roles=roles, groups=groups, by="operator")
    await counter.people.update("ruth", groups=["treasury"], by="operator")
    running = counter.bank.running
    olga = await counter.bank.reviewer("olga", Role.REVIEWER, Role.OPERATOR)
    await counter.people.update("olga", groups=["treasury"], by="operator")
    case_id = await counter.bank.case(agent)
    if what == "person":
        body = {"id": "zoe", "roles": ["reviewer"], "groups": ["treasury"]}
        assert (await olga.post("/api/v1/people", json=body)).status_code == 201
    else:
        assert (await olga.patch("/api/v1/people/zoe", json=GIVEN[what])).status_code == 200
    link, _ = await counter.people.make_link("zoe", by="zoe")
    async with running.client(origin="http://gateway.test") as zoe:
        await use_link(zoe, link)
        assert await counter.approve(zoe, case_id) == "pending"
        assert await counter.approve(olga, case_id) == "pending"
        told = (await why(counter, zoe, case_id))["zoe"]
        assert told.startswith("zoe fills no place: olga gave them the right to decide since the case was opened")


async def test_who_was_there_before_the_case_votes_for_themselves(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    await counter.people.update("rob", name="Robert", by="operator")  # gives nothing
    assert await counter.approve(rita, case_id) == "pending"
    assert await counter.approve(rob, case_id) == "approved"


async def test_findings_of_an_unknown_outcome_are_counted_alike(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient, rob: httpx.AsyncClient
) -> None:
    await counter.asks(TWO)
    case_id = await unknown(counter, agent, "rita", "rob")
    async with counter.bank.running.operator() as operator:
        ruth, rosa = await linked(counter, "ruth", operator), await linked(counter, "rosa", operator)
        for person in (ruth, rosa, operator):
            assert (await say(person, case_id, NOT_DONE)).json()["state"] == "unknown"
    assert refused(await counter.call(agent))[0] == "outcome_unknown"
    assert (await say(rita, case_id, NOT_DONE)).json()["state"] == NOT_DONE
    record = next(one for one in await counter.records(case_id) if one["type"] == "case.found")
    assert record["labels"]["makers"] == "operator"


async def test_a_session_ends_with_the_one_that_it_was_made_in(counter: Counter) -> None:
    running, people = counter.bank.running, counter.people
    await people.add("opal", name="Opal", roles=[Role.OPERATOR], by="operator")
    link, _ = await people.make_link("opal", by="opal")
    async with running.client(origin="http://gateway.test") as opal:
        await use_link(opal, link)
        ruth = await linked(counter, "ruth", opal)
        token = (await ruth.post("/api/v1/tokens", json={"days": 365})).json()
        later = (await opal.post("/api/v1/sign-in", json={"person": "rosa"})).json()["url"].partition("token=")[2]
        sessions = {one["person"]: one for one in (await opal.get("/api/v1/sessions")).json()}
        assert sessions["ruth"]["expires"] <= sessions["opal"]["expires"]
        assert token["expires"] <= sessions["ruth"]["expires"]  # nothing makes itself last longer
        assert (await ruth.get("/api/v1/people/me")).status_code == 200
        assert (await running.client(token["token"]).get("/api/v1/people/me")).status_code == 200
        await people.sign_out(next(iter(opal.cookies.values())))
        assert (await ruth.get("/api/v1/people/me")).status_code == 401
        assert (await running.client(token["token"]).get("/api/v1/people/me")).status_code == 401
        async with running.client(origin="http://gateway.test") as rosa:
            assert (await use_link(rosa, later)).status_code == 401


async def test_a_vote_keeps_its_makers_over_a_restart(
    counter: Counter, agent: httpx.AsyncClient, rita: httpx.AsyncClient
) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    async with counter.bank.running.operator() as operator:
        ruth = await linked(counter, "ruth", operator)
    await counter.approve(ruth, case_id)
    await counter.people.reload(counter.app.writer)  # as from another replica
    await counter.people.reload(counter.app.writer)
    assert counter.people.origin(next(iter(ruth.cookies.values())), by_cookie=True).makers == ("operator",)
    (vote,) = await counter.app.approvals.votes(case_id)
    assert vote.makers == ("operator",)
    assert (await rita.get(f"{API}/{case_id}")).json()["votes"][0]["makers"] == ["operator"]


async def test_the_page_of_a_case_says_why_a_vote_fills_no_place(counter: Counter, agent: httpx.AsyncClient) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    async with counter.bank.running.operator() as operator:
        ruth = await linked(counter, "ruth", operator)
        assert await counter.approve(operator, case_id) == "pending"
    before = (await ruth.get(f"/console/approvals/{case_id}")).text
    assert "ruth fills no place: operator made their sign-in" in before.partition("An approval would not count")[2]
    assert await counter.approve(ruth, case_id) == "pending"
    after = (await ruth.get(f"/console/approvals/{case_id}")).text
    assert "ruth fills no place: operator made their sign-in, and decides too." in after


async def test_who_gave_what_is_compared_with_the_log(counter: Counter) -> None:
    running, intruder = counter.bank.running, Intruder(counter.bank.running.app.process)
    await counter.people.add("zoe", name="Zoe", roles=[Role.AUDITOR], by="olga")
    await counter.people.update("zoe", roles=[Role.REVIEWER], by="olga")
    (old,) = intruder.rows("person", "id = ?", "zoe")
    await counter.people.update("zoe", roles=[], by="olga")
    await counter.people.update("zoe", roles=[Role.REVIEWER], by="rita")  # the same as before, but given anew
    (now,) = intruder.rows("person", "id = ?", "zoe")
    await placed_and_signed(running.app.log)
    await running.app.stop(1)
    intruder.put_back("person", old)
    running.app = App(running.app.process)
    await running.app.start()
    assert running.app.registry.people.standing("zoe") is None
    assert "was given what it may do by others, or at another time" in (running.app.log.macs.fault or "")
    intruder.put_back("person", now)
    counter.app = running.app
