from __future__ import annotations

from pathlib import Path

import pytest

from gateway.actions import Agent, AgentStatus
from gateway.errors import Refusal
from gateway.identity import Registry

from .conftest import House

HEADERS = {
    "authorization": lambda key: b"Bearer " + key,
    "x-api-key": lambda key: key,
    "x-goog-api-key": lambda key: key,
    "api-key": lambda key: key,
}


async def a_key(house: House, agent: str = "reader", user: str | None = None) -> bytes:
    if house.registry.agents.get(agent) is None:
        await house.registry.agents.declare([Agent(id=agent)])
    _, secret = await house.registry.keys.create(agent, person="operator", user=user)
    return secret.encode()


def refused(registry: Registry, headers: list[tuple[bytes, bytes]]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        registry.identity.identify(headers)
    return caught.value


@pytest.mark.parametrize("header", HEADERS)
async def test_a_key_is_taken_from_any_of_the_known_headers(house: House, header: str) -> None:
    key = await a_key(house, user="ada")
    caller = house.registry.identity.identify([(b"host", b"x"), (header.encode(), HEADERS[header](key))])
    assert (caller.agent.id, caller.user, caller.authn) == ("reader", "ada", "key")


async def test_the_same_key_in_two_headers_is_one_key(house: House) -> None:
    key = await a_key(house)
    caller = house.registry.identity.identify([(b"authorization", b"bearer  " + key), (b"x-api-key", key)])
    assert caller.agent.id == "reader"


async def test_two_different_keys_prove_nothing_even_if_both_are_good(house: House) -> None:
    first, second = await a_key(house), await a_key(house)
    refusal = refused(house.registry, [(b"authorization", b"Bearer " + first), (b"x-api-key", second)])
    assert refusal.code == "unauthenticated"
    assert "two different keys" in refusal.message


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Basic dXNlcjpwYXNz")],
        [(b"authorization", b"Bearer ")],
        [(b"x-api-key", b"agw_" + b"x" * 43)],
        [(b"x-api-key", b"\xff" * 43)],
        [(b"x-api-key", b"a" * 100_000)],
    ],
)
async def test_no_or_an_unknown_credential_is_unauthenticated(house: House, headers: list[tuple[bytes, bytes]]) -> None:
    assert refused(house.registry, headers).code == "unauthenticated"


async def test_no_header_can_name_the_user_or_another_agent(house: House) -> None:
    key = await a_key(house, user="ada")
    caller = house.registry.identity.identify(
        [(b"x-user", b"eve"), (b"x-gateway-user", b"eve"), (b"x-gateway-agent", b"admin"), (b"x-api-key", key)]
    )
    assert (caller.agent.id, caller.user) == ("reader", "ada")


async def test_a_revoked_key_is_refused_at_once_and_after_a_restart(house: House) -> None:
    key = await a_key(house)
    made = house.registry.keys.of("reader")[0]
    await house.registry.keys.revoke("reader", made.id, person="operator")
    assert refused(house.registry, [(b"x-api-key", key)]).code == "unauthenticated"
    assert refused(await house.again(), [(b"x-api-key", key)]).code == "unauthenticated"
    assert await house.recorded("key.") == ["key.created", "key.revoked"]


async def test_a_rotated_key_works_for_the_overlap_and_no_longer(house: House) -> None:
    old = await a_key(house)
    _, new, replaced = await house.registry.keys.rotate("reader", person="operator", overlap_s=3600)
    assert len(replaced) == 1
    house.clock.advance(3599)
    for key in (old, new.encode()):
        assert house.registry.identity.identify([(b"x-api-key", key)]).agent.id == "reader"
    house.clock.advance(1)
    refusal = refused(house.registry, [(b"x-api-key", old)])
    assert (refusal.code, "expired" in refusal.message) == ("unauthenticated", True)
    assert house.registry.identity.identify([(b"x-api-key", new.encode())]).agent.id == "reader"
    assert refused(await house.again(), [(b"x-api-key", old)]).code == "unauthenticated"


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(house: House) -> None:
    old = await a_key(house)
    await house.registry.keys.rotate("reader", person="operator", overlap_s=0)
    assert refused(house.registry, [(b"x-api-key", old)]).code == "unauthenticated"


async def test_a_rotation_leaves_other_users_keys_alone_and_never_lengthens_a_life(house: House) -> None:
    of_ada, of_bob = await a_key(house, user="ada"), await a_key(house, user="bob")
    await house.registry.keys.rotate("reader", person="operator", user="ada", overlap_s=60)
    await house.registry.keys.rotate("reader", person="operator", user="ada", overlap_s=3600)
    house.clock.advance(61)
    assert refused(house.registry, [(b"x-api-key", of_ada)]).code == "unauthenticated"
    assert house.registry.identity.identify([(b"x-api-key", of_bob)]).user == "bob"


async def test_secrets_are_kept_only_as_hashes(house: House) -> None:
    key = await a_key(house)
    await house.registry.people.ensure_local_operator()
    link, _ = await house.registry.people.make_link("operator", by=None)
    _, session, _ = await house.registry.people.sign_in(link)
    await house.writer.close()
    stored = b"".join(
        path.read_bytes() for path in Path(house.writer.database.place).parent.rglob("*") if path.is_file()
    )
    for secret in (key, link.encode(), session.encode()):
        assert secret not in stored
        assert secret[4:] not in stored


async def test_keys_of_an_unknown_agent_are_not_made(house: House) -> None:
    with pytest.raises(Refusal) as caught:
        await house.registry.keys.create("nobody", person="operator")
    assert caught.value.code == "not_found"


async def test_a_key_and_its_record_are_one_transaction(house: House) -> None:
    await house.registry.agents.declare([Agent(id="reader")])
    house.writer.latch("the test says so")
    with pytest.raises(Refusal) as caught:
        await house.registry.keys.create("reader", person="operator")
    assert caught.value.code == "audit_unavailable"
    assert house.registry.keys.of("reader") == []
    assert await house.rows("SELECT * FROM agent_key") == []


async def test_an_agents_change_reaches_its_keys_at_once(house: House) -> None:
    key = await a_key(house)
    await house.registry.agents.suspend("reader", person="operator", reason="odd")
    caller = house.registry.identity.identify([(b"x-api-key", key)])
    assert caller.agent.status is AgentStatus.SUSPENDED
    await house.registry.agents.declare([])
    assert refused(house.registry, [(b"x-api-key", key)]).code == "unauthenticated"
    await house.registry.agents.declare([Agent(id="reader", version="2")])
    caller = house.registry.identity.identify([(b"x-api-key", key)])
    assert (caller.agent.version, caller.agent.status) == ("2", AgentStatus.SUSPENDED)
