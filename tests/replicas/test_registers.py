"""Agents, keys and people: what is changed at one replica is so at the other, whatever that one does meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.actions import AgentStatus
from gateway.approvals import Approvals
from gateway.identity import Role
from tests.bank_house import Bank
from tests.gateway_house import use_link
from tests.intruder import Intruder
from tests.replicas.house import Pair, deaf_and_blind, until

SOON_S = 1.0
API = "/api/v1"
REGISTERED = "{id: reader, team: finance, owners: {business: dana}}"


async def status_of(person: httpx.AsyncClient, agent_id: str = "reader") -> str:
    answer = await person.get(f"{API}/agents/{agent_id}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


async def models(client: httpx.AsyncClient) -> int:
    """How a request of an agent's is answered."""
    return (await client.get("/v1/models")).status_code


# ------------------------------------------------------------ at once


async def test_an_agent_made_at_one_acts_at_the_other_at_once(pair: Pair) -> None:
    async with pair.one.running.operator() as here, pair.other.running.operator() as there:
        assert (await here.post(f"{API}/agents", json={"id": "late", "team": "finance"})).status_code == 201
        made = await here.post(f"{API}/agents/late/keys", json={})
        async with pair.other.running.client(made.json()["secret"]) as late:
            assert await models(late) == 200
        assert await status_of(there, "late") == "active"


async def test_a_rotated_key_is_good_at_the_other_at_once_and_the_old_one_ends_there(pair: Pair) -> None:
    _, old = await pair.key()
    assert await models(old) == 200
    async with pair.one.running.operator() as operator:
        rotated = await operator.post(f"{API}/agents/reader/rotate-key", json={"overlap_s": 0})
        assert rotated.status_code == 201, rotated.text
    async with pair.other.running.client(rotated.json()["secret"]) as new:
        assert await models(new) == 200

    async def is_refused() -> bool:
        return await models(old) == 401

    await until(is_refused, "the old key refused at the other", SOON_S)


async def test_who_was_signed_in_at_one_is_so_at_the_other_until_signed_out_at_either(pair: Pair) -> None:
    rita = await pair.reviewer(pair.one, "rita")
    async with pair.other.running.client(origin="http://gateway.test") as there:
        there.cookies = rita.cookies
        assert (await there.get(f"{API}/approvals")).status_code == 200
        assert (await rita.post("/console/logout")).status_code == 200

        async def is_out() -> bool:
            return (await there.get(f"{API}/approvals")).status_code == 401

        await until(is_out, "signed out at the other", SOON_S)


async def test_a_sign_in_link_is_good_for_one_of_two_at_the_same_moment(pair: Pair) -> None:
    await pair.one.running.app.registry.people.add("rita", name="Rita", roles=(Role.REVIEWER,), by="operator")
    for _ in range(5):
        link, _ = await pair.one.running.app.registry.people.make_link("rita", by="operator")

        async def opened(bank: Bank, link: str = link) -> int:
            async with bank.running.client() as browser:
                return (await use_link(browser, link)).status_code

        assert sorted(await asyncio.gather(*map(opened, pair.both))) == [303, 401]
        assert await asyncio.gather(*map(opened, pair.both)) == [401, 401]


async def test_a_vote_counts_by_what_its_person_may_now_wherever_that_was_changed(pair: Pair) -> None:
    here, _ = await pair.key()
    rita = await pair.reviewer(pair.other, "rita")
    case_id = await pair.one.case(here, reference="no-longer")
    shown = (await rita.get(f"{API}/approvals/{case_id}")).json()
    deaf_and_blind(pair.other)
    await pair.one.running.app.registry.people.update("rita", by="operator", roles=(Role.AUDITOR,))
    vote = {"decision": "approve", "presented_digest": shown["presented_digest"]}
    voted = await rita.post(f"{API}/approvals/{case_id}/reviews", json=vote)
    assert voted.status_code == 403, voted.text
    assert pair.paid("no-longer") == 0


async def test_a_revocation_is_heard_of_whatever_somebody_does_to_rows_meanwhile(pair: Pair) -> None:
    """The count of changes is held down, and the key's older row, with its valid code, is put back at once."""
    intruder = Intruder(pair.one.running.app.process)
    _, there = await pair.key()
    assert await models(there) == 200
    revived = (
        "UPDATE agent_key SET revoked_ns = OLD.revoked_ns, mac = OLD.mac WHERE id = OLD.id AND revoked_ns IS NOT NULL"
    )
    for name, table, when, does in (
        ("keep", "changed", "BEFORE", "RETURN OLD;"),
        ("revive", "agent_key", "AFTER", f"{revived}; RETURN NULL;"),
    ):
        intruder.run(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does} END $$")
        fires = f"{when} UPDATE ON {table} FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION {name}()"
        intruder.run(f"CREATE TRIGGER {name} {fires}")
    keys = pair.one.running.app.registry.keys
    for key in keys.of("reader"):
        await keys.revoke("reader", key.id, person="operator")
    assert intruder.rows("agent_key", "revoked_ns IS NOT NULL") == []

    async def is_refused() -> bool:
        return await models(there) == 401

    await until(is_refused, "the revoked key refused at the other", SOON_S)
    assert "agent_key" in (pair.other.running.app.log.macs.fault or "")


# ------------------------------------------------------------ at the same moment


async def test_a_suspension_holds_although_the_other_changes_the_agent_in_the_same_moment(pair: Pair) -> None:
    """The other has not heard of it yet, and is told another owner."""
    here, there = await pair.key()
    deaf_and_blind(pair.other)
    async with pair.one.running.operator() as operator:
        assert (await operator.post(f"{API}/agents/reader/suspend", json={"reason": "stop"})).status_code == 200
    config = pair.folder / "gateway.yaml"
    text = config.read_text()
    assert REGISTERED in text
    config.write_text(text.replace(REGISTERED, REGISTERED.replace("dana", "olga")))
    await pair.reload()
    assert [await models(client) for client in (there, here)] == [403, 403]
    for bank in pair.both:
        agent = bank.running.app.agent("reader")
        assert agent is not None
        assert (agent.status, agent.owners) == (AgentStatus.SUSPENDED, {"business": "olga"})
    await pair.verified()


async def test_a_revoked_key_stays_revoked_although_the_other_rotates_in_the_same_moment(pair: Pair) -> None:
    here, there = await pair.key()
    deaf_and_blind(pair.other)
    async with pair.one.running.operator() as operator:
        (key,) = (await operator.get(f"{API}/agents/reader/keys")).json()
        assert (await operator.delete(f"{API}/agents/reader/keys/{key['id']}")).status_code == 200
    async with pair.other.running.operator() as operator:
        rotated = await operator.post(f"{API}/agents/reader/rotate-key", json={"overlap_s": 3600})
        assert rotated.status_code == 201, rotated.text
    await pair.one.running.app.look_again()
    assert [await models(client) for client in (there, here)] == [401, 401]
    await pair.verified()


async def test_a_removed_person_stays_removed_although_the_other_changes_them_in_the_same_moment(pair: Pair) -> None:
    await pair.one.running.app.registry.people.add("rita", name="Rita", roles=(Role.REVIEWER,), by="operator")
    await pair.other.running.app.look_again()
    deaf_and_blind(pair.other)
    async with pair.one.running.operator() as here, pair.other.running.operator() as there:
        assert (await here.delete(f"{API}/people/rita")).status_code in (200, 204)
        changed = await there.patch(f"{API}/people/rita", json={"roles": ["operator"]})
        assert changed.status_code == 404, changed.text
        assert "rita" not in {one["id"] for one in (await there.get(f"{API}/people")).json()}
    await pair.verified()


@pytest.mark.parametrize("what", ["agents", "people"])
async def test_of_two_who_take_one_name_in_the_same_moment_one_is_told_that_it_is_taken(pair: Pair, what: str) -> None:
    said: dict[str, Any] = {"agents": {"team": "finance"}, "people": {"name": "X", "roles": ["reviewer"]}}
    async with pair.one.running.operator() as here, pair.other.running.operator() as there:
        for n in range(5):
            body = {"id": f"taken-{n}", **said[what]}
            answers = await asyncio.gather(*(at.post(f"{API}/{what}", json=body) for at in (here, there)))
            assert sorted(one.status_code for one in answers) == [201, 409], [one.text for one in answers]
    await pair.verified()


async def test_many_changes_at_both_at_once_are_all_made(pair: Pair) -> None:
    async def make(bank: Bank, n: int) -> str:
        key, _ = await bank.running.app.registry.keys.create("reader", person="operator", user=f"user-{n}")
        return key.id

    made = await asyncio.gather(*(make(bank, n) for n in range(20) for bank in pair.both))
    for bank in pair.both:
        await bank.running.app.look_again()
        assert {key.id for key in bank.running.app.registry.keys.of("reader")} == set(made)
    await pair.verified()


async def test_who_starts_misses_nothing_that_was_changed_meanwhile(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspended after the newcomer has read the agents, and before it follows what others change."""
    here, _ = await pair.key()
    whole = Approvals.load

    async def meanwhile(approvals: Approvals) -> None:
        monkeypatch.undo()
        async with pair.one.running.operator() as operator:
            assert (await operator.post(f"{API}/agents/reader/suspend", json={"reason": "stop"})).status_code == 200
        await late.look_again()  # as its own watch may
        await whole(approvals)

    async with pair.newcomer() as late:
        monkeypatch.setattr(Approvals, "load", meanwhile)
        await late.start()

        async def is_suspended() -> bool:
            agent = late.agent("reader")
            return agent is not None and agent.status is AgentStatus.SUSPENDED

        await until(is_suspended, "the suspension at the newcomer", SOON_S)
    assert await models(here) == 403
