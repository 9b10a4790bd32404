from __future__ import annotations

import pytest

from gateway.actions import Agent, AgentStatus
from gateway.errors import Refusal

from .conftest import House

READER = Agent(id="reader", team="t", owners={"business": "dana"}, labels={"a": "b"}, next_review="2027-01-01")


async def test_declared_agents_survive_a_restart_in_full(house: House) -> None:
    assert await house.registry.agents.declare([READER]) == ["reader"]
    again = await house.again()
    assert again.agents.get("reader") == READER
    assert await again.agents.declare([READER]) == []
    assert await house.recorded("agent.") == ["agent.registered"]


async def test_a_suspension_survives_reload_and_restart_until_a_person_lifts_it(house: House) -> None:
    await house.registry.agents.declare([READER])
    await house.registry.agents.suspend("reader", person="ada", reason="odd")
    assert house.suspended == ["reader"]
    await house.registry.agents.declare([Agent(id="reader", version="2")])
    for registry in (house.registry, await house.again()):
        found = registry.agents.get("reader")
        assert found is not None
        assert found.status is AgentStatus.SUSPENDED
    await house.registry.agents.resume("reader", person="ada", reason="")
    assert house.registry.agents.registered("reader").agent.status is AgentStatus.ACTIVE
    assert await house.recorded("agent.") == [
        "agent.registered",
        "agent.suspended",
        "agent.changed",
        "agent.resumed",
    ]


async def test_an_agent_that_the_configuration_drops_is_gone_but_its_id_is_not_free(house: House) -> None:
    await house.registry.agents.declare([READER])
    await house.registry.agents.declare([])
    assert house.registry.agents.get("reader") is None
    assert house.registry.agents.all() == []
    with pytest.raises(Refusal) as caught:
        await house.registry.agents.create(READER, person="ada")
    assert caught.value.code == "conflict"
    assert (await house.again()).agents.get("reader") is None


async def test_agents_made_through_the_api_outlive_a_reload(house: House) -> None:
    await house.registry.agents.create(Agent(id="mine"), person="ada")
    await house.registry.agents.declare([READER])
    assert [one.agent.id for one in house.registry.agents.all()] == ["mine", "reader"]
    with pytest.raises(Refusal) as caught:
        await house.registry.agents.create(Agent(id="mine"), person="ada")
    assert caught.value.code == "conflict"


@pytest.mark.parametrize("change", ["suspend", "resume"])
async def test_an_unknown_agent_cannot_be_changed(house: House, change: str) -> None:
    with pytest.raises(Refusal) as caught:
        await getattr(house.registry.agents, change)("nobody", person="ada", reason="")
    assert caught.value.code == "not_found"
    assert await house.recorded("agent.") == []


async def test_a_change_that_cannot_be_recorded_is_not_made(house: House) -> None:
    await house.registry.agents.declare([READER])
    house.writer.latch("the test says so")
    with pytest.raises(Refusal) as caught:
        await house.registry.agents.suspend("reader", person="ada", reason="")
    assert caught.value.code == "audit_unavailable"
    assert house.registry.agents.registered("reader").agent.status is AgentStatus.ACTIVE
    assert await house.rows("SELECT status FROM agent") == [("active",)]
