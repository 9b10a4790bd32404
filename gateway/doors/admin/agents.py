"""/api/v1/agents: the register of agents and their keys."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from gateway.clock import rfc3339
from gateway.doors.admin.paging import Cursor, Limit, page
from gateway.doors.admin.paths import API
from gateway.doors.admin.people_in import Operator, PartsDep, Person
from gateway.doors.admin.schemas import (
    AgentIn,
    AgentMade,
    AgentOut,
    KeyIn,
    KeyOut,
    NewKey,
    ReasonIn,
    RotateIn,
)
from gateway.identity.keys import Key

routes = APIRouter(prefix=f"{API}/agents", tags=["agents"])


@routes.get("")
async def list_agents(
    parts: PartsDep, person: Person, request: Request, response: Response, limit: Limit = 100, cursor: Cursor = None
) -> Sequence[AgentOut]:
    """All agents, by id."""
    agents = [AgentOut.of(one) for one in parts.registry.agents.all()]
    return page(agents, lambda agent: agent.id, limit, cursor, request, response)


@routes.post("", status_code=201)
async def create_agent(wanted: AgentIn, parts: PartsDep, person: Operator) -> AgentMade:
    """Register an agent and make its first key; the secret is shown this once."""
    registry = parts.registry
    made = await registry.agents.create(wanted.agent(), person=person.person.id)
    key, secret = await registry.keys.create(wanted.id, person=person.person.id)
    return AgentMade(**AgentOut.of(made).model_dump(), key=_new(key, secret))


@routes.get("/{agent_id}")
async def show_agent(agent_id: str, parts: PartsDep, person: Person) -> AgentOut:
    """One agent."""
    return AgentOut.of(parts.registry.agents.registered(agent_id))


@routes.post("/{agent_id}/suspend")
async def suspend_agent(agent_id: str, why: ReasonIn, parts: PartsDep, person: Operator) -> AgentOut:
    """Stop it now: no new action, open streams end. Survives reloads and restarts."""
    agents = parts.registry.agents
    return AgentOut.of(await agents.suspend(agent_id, person=person.person.id, reason=why.reason))


@routes.post("/{agent_id}/resume")
async def resume_agent(agent_id: str, why: ReasonIn, parts: PartsDep, person: Operator) -> AgentOut:
    """Let it act again."""
    agents = parts.registry.agents
    return AgentOut.of(await agents.resume(agent_id, person=person.person.id, reason=why.reason))


@routes.post("/{agent_id}/rotate-key", status_code=201)
async def rotate_key(agent_id: str, how: RotateIn, parts: PartsDep, person: Operator) -> NewKey:
    """A new key; the old ones (of the same user) still work for the overlap."""
    keys = parts.registry.keys
    key, secret, old = await keys.rotate(agent_id, person=person.person.id, user=how.user, overlap_s=how.overlap_s)
    now_ns = parts.clock.now_ns()
    return _new(key, secret, [KeyOut.of(one, now_ns) for one in old])


@routes.get("/{agent_id}/keys")
async def list_keys(
    agent_id: str,
    parts: PartsDep,
    person: Person,
    request: Request,
    response: Response,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Sequence[KeyOut]:
    """Its keys, revoked and expired ones too; never a secret."""
    parts.registry.agents.registered(agent_id)
    now_ns = parts.clock.now_ns()
    keys = sorted((KeyOut.of(key, now_ns) for key in parts.registry.keys.of(agent_id)), key=lambda key: key.id)
    return page(keys, lambda key: key.id, limit, cursor, request, response)


@routes.post("/{agent_id}/keys", status_code=201)
async def create_key(agent_id: str, wanted: KeyIn, parts: PartsDep, person: Operator) -> NewKey:
    """A further key, perhaps bound to a user; the secret is shown this once."""
    key, secret = await parts.registry.keys.create(
        agent_id, person=person.person.id, user=wanted.user, valid_s=wanted.valid_s
    )
    return _new(key, secret)


@routes.delete("/{agent_id}/keys/{key_id}")
async def revoke_key(agent_id: str, key_id: str, parts: PartsDep, person: Operator) -> KeyOut:
    """End a key at once."""
    parts.registry.agents.registered(agent_id)
    key = await parts.registry.keys.revoke(agent_id, key_id, person=person.person.id)
    return KeyOut.of(key, parts.clock.now_ns())


def _new(key: Key, secret: str, replaces: list[KeyOut] | None = None) -> NewKey:
    expires = None if key.expires_ns is None else rfc3339(key.expires_ns)
    return NewKey(id=key.id, agent=key.agent_id, user=key.user, secret=secret, expires=expires, replaces=replaces or [])
