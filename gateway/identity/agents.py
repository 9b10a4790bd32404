"""The register of agents: who they are, what state they are in. Their keys are in `keys.py`.

An agent comes from the configuration (source `config`) or from a person through the API (`api`). What the
configuration no longer declares becomes `removed`: its keys stop working, its history stays. A suspension is a
person's act and survives any reload; only a person lifts it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from gateway.actions import Agent, AgentStatus
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.identity.journal import Change, Journal, Reads, Register, in_turn, warm
from gateway.store.macs import RowMacs


class Registered(msgspec.Struct, frozen=True):
    """An agent and how it came here. `source`: config, api, or removed. `change_no` grows with every change."""

    agent: Agent
    source: str
    created_ns: int
    change_no: int = 0


class Agents(Register):
    """All registered agents, answered from memory. Changes wait for the journal, then for nothing."""

    def __init__(
        self,
        *,
        journal: Journal,
        macs: RowMacs,
        clock: Clock,
        on_change: Callable[[Agent | None, str], None],
        on_suspend: Callable[[str], object] = lambda _: None,
    ) -> None:
        super().__init__()
        self._journal = journal
        self._macs = macs
        self._clock = clock
        self._on_change = on_change
        self._on_suspend = on_suspend
        self._all: dict[str, Registered] = {}
        self.suspended_on_record: frozenset[str] = frozenset()
        """Agents that the log says are suspended. One whose row is missing must not come back as an active one."""

    async def load(self, store: Reads) -> None:
        """Read everything from the store. Plain SQL, because a start must not pay for SQLAlchemy."""
        self._all = {row[0]: _registered(row) for row in await store.read(lambda db: self._macs.read(db, "agent"))}
        for agent_id, found in self._all.items():
            self._macs.saw("agent", agent_id, found.change_no)

    async def reload(self, store: Reads) -> None:
        """Take over what another replica changed; an agent that it suspended is stopped here too."""
        async with self.turn:
            before = self._all
            await self.load(store)
            for agent_id in before.keys() - self._all.keys():  # its row was changed by somebody else: it is refused
                self._on_change(None, agent_id)
                self._on_suspend(agent_id)
            for agent_id, now in self._all.items():
                had = before.get(agent_id)
                if had == now:
                    continue
                self._on_change(self.get(agent_id), agent_id)
                was_active = had is None or had.agent.status is AgentStatus.ACTIVE
                if was_active and now.agent.status is AgentStatus.SUSPENDED:
                    self._on_suspend(agent_id)

    def get(self, agent_id: str) -> Agent | None:
        """The agent as it is now; None if it is unknown or removed."""
        found = self._all.get(agent_id)
        return None if found is None or found.source == "removed" else found.agent

    def registered(self, agent_id: str) -> Registered:
        """The agent with its source. Raises Refusal(not_found)."""
        found = self._all.get(agent_id)
        if found is None or found.source == "removed":
            raise Refusal("not_found", f"There is no agent {agent_id!r}; `gateway agents list` shows those there are.")
        return found

    def all(self) -> list[Registered]:
        """Every agent that is registered now, by id."""
        return sorted((one for one in self._all.values() if one.source != "removed"), key=lambda one: one.agent.id)

    @in_turn
    async def declare(self, declared: Collection[Agent]) -> list[str]:
        """Make the register say what the configuration says; the ids that changed.

        Each change is recorded. Agents made through the API stay, unless the configuration takes over their id.
        """
        wanted = {agent.id: agent for agent in declared}
        changes: list[tuple[str, Registered]] = []
        for agent_id, agent in wanted.items():
            had = self._all.get(agent_id)
            if had is None:
                known = self._as_recorded(agent)
                changes.append(("agent.registered", Registered(known, "config", self._clock.now_ns())))
                continue
            now = msgspec.structs.replace(agent, status=had.agent.status)
            if now != had.agent or had.source != "config":
                changes.append(("agent.changed", Registered(now, "config", had.created_ns, had.change_no)))
        changes += [
            ("agent.removed", Registered(had.agent, "removed", had.created_ns, had.change_no))
            for had in self._all.values()
            if had.source == "config" and had.agent.id not in wanted
        ]
        for type_, changed in changes:
            await self._record(type_, changed, None, {"by": "configuration"})
        return [changed.agent.id for _, changed in changes]

    @in_turn
    async def create(self, agent: Agent, *, person: str) -> Registered:
        """Register an agent through the API. Raises Refusal(conflict) if the id is taken."""
        had = self._all.get(agent.id)
        if had is not None:
            raise Refusal(
                "conflict",
                f"The agent {agent.id!r} was registered before, and its history stays; choose another id."
                if had.source == "removed"
                else f"The agent {agent.id!r} exists already; choose another id.",
            )
        new = Registered(self._as_recorded(agent), "api", self._clock.now_ns())
        return await self._record("agent.registered", new, person, {})

    async def suspend(self, agent_id: str, *, person: str, reason: str) -> Registered:
        """Stop the agent: no new action, open streams end. Doing it again changes nothing but is recorded."""
        changed = await self._set(agent_id, AgentStatus.SUSPENDED, "agent.suspended", person, reason)
        self._on_suspend(agent_id)
        return changed

    async def resume(self, agent_id: str, *, person: str, reason: str) -> Registered:
        """Let the agent act again."""
        return await self._set(agent_id, AgentStatus.ACTIVE, "agent.resumed", person, reason)

    @in_turn
    async def _set(self, agent_id: str, status: AgentStatus, type_: str, person: str, reason: str) -> Registered:
        had = self.registered(agent_id)
        agent = msgspec.structs.replace(had.agent, status=status)
        changed = Registered(agent, had.source, had.created_ns, had.change_no)
        return await self._record(type_, changed, person, {"reason": reason} if reason else {})

    def _as_recorded(self, agent: Agent) -> Agent:
        """An agent whose row is not there, with the status that the log knows of it."""
        if agent.id not in self.suspended_on_record:
            return agent
        return msgspec.structs.replace(agent, status=AgentStatus.SUSPENDED)

    async def _record(self, type_: str, had: Registered, person: str | None, labels: dict[str, str]) -> Registered:
        change_no = self._macs.next_change("agent", had.agent.id, had.change_no)
        changed = msgspec.structs.replace(had, change_no=change_no)
        agent = changed.agent
        subject = {"agent": agent.id}
        if type_ in {"agent.registered", "agent.changed"}:
            subject["definition"] = msgspec.json.encode(agent, order="sorted").decode()
        await warm()
        await self._journal(
            type_, tenant=agent.tenant, person=person, subject=subject, labels=labels, also=_write(self._macs, changed)
        )
        self._macs.saw("agent", agent.id, change_no)
        self.suspended_on_record -= {agent.id}
        self._all[agent.id] = changed
        self._on_change(self.get(agent.id), agent.id)
        return changed


def _write(macs: RowMacs, changed: Registered) -> Change:
    from gateway.identity import rows

    agent = changed.agent
    row = rows.AgentRow(
        id=agent.id,
        tenant=agent.tenant,
        env=agent.env,
        version=agent.version,
        team=agent.team,
        use_case=agent.use_case,
        tier=agent.tier,
        status=agent.status.value,
        owners=msgspec.json.encode(agent.owners, order="sorted").decode(),
        next_review=agent.next_review,
        labels=msgspec.json.encode(agent.labels, order="sorted").decode(),
        source=changed.source,
        created_ns=changed.created_ns,
        change_no=changed.change_no,
    )
    return rows.merging(macs, row)


def _registered(row: tuple[Any, ...]) -> Registered:
    id_, tenant, env, version, team, use_case, tier, status, owners, next_review, *rest = row
    labels, source, created_ns, change_no = rest
    agent = Agent(
        id=id_,
        tenant=tenant,
        env=env,
        version=version,
        team=team,
        use_case=use_case,
        tier=tier,
        status=AgentStatus(status),
        owners=msgspec.json.decode(owners, type=dict[str, str]),
        next_review=next_review,
        labels=msgspec.json.decode(labels, type=dict[str, str]),
    )
    return Registered(agent, source, created_ns, change_no)
