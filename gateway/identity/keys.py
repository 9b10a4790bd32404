"""Keys of agents: made, rotated with an overlap, revoked. The secret is shown once and never kept.

A key is bound when it is made to its agent and, if it has one, to the user it acts for; nothing in a request can
change either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from gateway.actions import Agent, Caller
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.identity import tokens
from gateway.identity.identify import Identity
from gateway.identity.journal import Change, Journal, Reads, Register, in_turn, warm
from gateway.store.macs import RowMacs

DEFAULT_OVERLAP_S = 24 * 3600
_NANOS = 1_000_000_000


class Key(msgspec.Struct, frozen=True):
    """A key as it is kept. Times are nanoseconds since the epoch; None: never."""

    id: str
    tenant: str
    agent_id: str
    key_sha256: str
    user: str | None
    created_ns: int
    expires_ns: int | None = None
    revoked_ns: int | None = None

    def state(self, now_ns: int) -> str:
        """active, expiring (active, with an end), expired, or revoked."""
        if self.revoked_ns is not None:
            return "revoked"
        if self.expires_ns is None:
            return "active"
        return "expiring" if now_ns < self.expires_ns else "expired"


class Keys(Register):
    """All keys. Tells `Identity` which hashes prove which caller."""

    def __init__(
        self,
        *,
        journal: Journal,
        macs: RowMacs,
        clock: Clock,
        new_id: Callable[[], str],
        random_bytes: Callable[[int], bytes],
        identity: Identity,
        agent: Callable[[str], Agent | None],
    ) -> None:
        super().__init__()
        self._journal = journal
        self._macs = macs
        self._clock = clock
        self._new_id = new_id
        self._random_bytes = random_bytes
        self._identity = identity
        self._agent = agent
        self._of_agent: dict[str, dict[str, Key]] = {}

    async def load(self, store: Reads) -> None:
        """Read all keys from the store; the agents must be there."""
        found = {row[0]: Key(*row) for row in await store.read(lambda db: self._macs.read(db, "agent_key"))}
        for keys in self._of_agent.values():
            for key_id in [key_id for key_id in keys if key_id not in found]:
                self._identity.unbind(keys.pop(key_id).key_sha256)  # its row was changed by somebody else
        for key in found.values():
            had = self._of_agent.get(key.agent_id, {}).get(key.id)
            if had is not None and _ends_ns(key) > _ends_ns(had):
                self._macs.report("agent_key", key.id, "is an older state of the row that was put back")
                key = had
            self._remember(key)

    async def reload(self, store: Reads) -> None:
        """Take over what another replica changed."""
        async with self.turn:
            await self.load(store)

    def rebind(self, agent: Agent | None, agent_id: str) -> None:
        """The agent has changed (None: it is gone): its keys prove the new state from now on."""
        for key in self._of_agent.get(agent_id, {}).values():
            self._bind(key, agent)

    def of(self, agent_id: str) -> list[Key]:
        """The agent's keys, oldest first, revoked and expired ones too."""
        return sorted(self._of_agent.get(agent_id, {}).values(), key=lambda key: (key.created_ns, key.id))

    @in_turn
    async def create(
        self,
        agent_id: str,
        *,
        person: str | None,
        user: str | None = None,
        valid_s: float | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret. Raises Refusal(not_found) for an unknown agent."""
        key, secret = self._mint(self._known(agent_id), user, valid_s)
        await self._record("key.created", person, [key], {"key": key.id})
        return key, secret

    @in_turn
    async def rotate(
        self, agent_id: str, *, person: str, user: str | None = None, overlap_s: float = DEFAULT_OVERLAP_S
    ) -> tuple[Key, str, list[Key]]:
        """A new key for the agent and `user`, its secret, and the old keys, which end after the overlap.

        Only keys bound to the same user are replaced. An overlap of 0 revokes them at once. Raises
        Refusal(not_found) for an unknown agent.
        """
        now_ns = self._clock.now_ns()
        end_ns = now_ns + int(overlap_s * _NANOS)
        key, secret = self._mint(self._known(agent_id), user, None)
        old: list[Key] = []
        for had in self.of(agent_id):
            if had.user != user or had.state(now_ns) not in {"active", "expiring"}:
                continue
            if overlap_s <= 0:
                old.append(msgspec.structs.replace(had, revoked_ns=now_ns))
            else:
                sooner_ns = end_ns if had.expires_ns is None else min(end_ns, had.expires_ns)
                old.append(msgspec.structs.replace(had, expires_ns=sooner_ns))
        replaced = ",".join(had.id for had in old)
        until_ns = now_ns if overlap_s <= 0 else end_ns
        subject = {"key": key.id, "replaces": replaced, "until_ns": str(until_ns)}
        await self._record("key.rotated", person, [key, *old], subject)
        return key, secret, old

    @in_turn
    async def revoke(self, agent_id: str, key_id: str, *, person: str) -> Key:
        """End a key at once. Raises Refusal(not_found); an already revoked one stays as it is."""
        had = self._of_agent.get(agent_id, {}).get(key_id)
        if had is None:
            raise Refusal("not_found", f"The agent {agent_id!r} has no key {key_id!r}; list its keys first.")
        if had.revoked_ns is not None:
            return had
        key = msgspec.structs.replace(had, revoked_ns=self._clock.now_ns())
        await self._record("key.revoked", person, [key], {"key": key.id})
        return key

    def _known(self, agent_id: str) -> Agent:
        agent = self._agent(agent_id)
        if agent is None:
            raise Refusal("not_found", f"There is no agent {agent_id!r}; `gateway agents list` shows those there are.")
        return agent

    def _mint(self, agent: Agent, user: str | None, valid_s: float | None) -> tuple[Key, str]:
        secret = tokens.mint(tokens.AGENT_KEY, self._random_bytes)
        now_ns = self._clock.now_ns()
        key = Key(
            id=self._new_id(),
            tenant=agent.tenant,
            agent_id=agent.id,
            key_sha256=tokens.digest(secret),
            user=user,
            created_ns=now_ns,
            expires_ns=None if valid_s is None else now_ns + int(valid_s * _NANOS),
        )
        return key, secret

    async def _record(self, type_: str, person: str | None, changed: list[Key], subject: dict[str, str]) -> None:
        first = changed[0]
        subject = {"agent": first.agent_id, **subject}
        if first.user is not None:
            subject["user"] = first.user
        await warm()
        await self._journal(
            type_,
            tenant=first.tenant,
            person=person,
            subject=subject,
            labels={} if person is not None else {"by": "gateway"},
            also=_write(self._macs, changed),
        )
        for key in changed:
            self._remember(key)

    def _remember(self, key: Key) -> None:
        if key.revoked_ns is not None:
            self._macs.saw("agent_key", key.id, 1)
        self._of_agent.setdefault(key.agent_id, {})[key.id] = key
        self._bind(key, self._agent(key.agent_id))

    def _bind(self, key: Key, agent: Agent | None) -> None:
        if agent is None or key.revoked_ns is not None:
            self._identity.unbind(key.key_sha256)
        else:
            self._identity.bind(key.key_sha256, Caller(agent, key.user, key.id, "key"), key.expires_ns)


def _ends_ns(key: Key) -> float:
    """When a key stops working."""
    if key.revoked_ns is not None:
        return 0
    return float("inf") if key.expires_ns is None else key.expires_ns


def _write(macs: RowMacs, changed: Iterable[Key]) -> Change:
    from gateway.identity import rows

    return rows.merging(macs, *(rows.AgentKeyRow(**msgspec.structs.asdict(key)) for key in changed))
