"""The room as one object: identity on the hot path, and the registers behind it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway import known_secrets
from gateway.actions import Agent
from gateway.clock import Clock, Ids
from gateway.identity import tokens
from gateway.identity.agents import Agents
from gateway.identity.identify import Identity
from gateway.identity.journal import Journal, Reads
from gateway.identity.keys import Keys
from gateway.identity.people import People
from gateway.store.macs import RowMacs

OPERATOR_TOKEN = "operator.token"  # noqa: S105 - the name of a file


class Registry:
    """Agents, keys and people, and the `identity` that answers from them. Call `load` before the first request."""

    def __init__(
        self,
        *,
        journal: Journal,
        macs: RowMacs,
        clock: Clock,
        ids: Ids,
        random_bytes: Callable[[int], bytes] = os.urandom,
        on_suspend: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.identity = Identity(clock, ids.new)
        self.agents = Agents(
            journal=journal, macs=macs, clock=clock, on_change=self._agent_changed, on_suspend=on_suspend
        )
        self.keys = Keys(
            journal=journal,
            macs=macs,
            clock=clock,
            new_id=ids.new,
            random_bytes=random_bytes,
            identity=self.identity,
            agent=self.agents.get,
        )
        self.people = People(journal=journal, macs=macs, clock=clock, random_bytes=random_bytes)
        self._random_bytes = random_bytes

    async def load(self, store: Reads) -> None:
        """Read all registers from the store."""
        await self.agents.load(store)
        await self.keys.load(store)
        await self.people.load(store)

    async def reload(self, topic: str, store: Reads) -> None:
        """Read anew what another replica changed: `agent`, `key` or `person`."""
        if topic == "agent":
            await self.agents.reload(store)
        elif topic == "key":
            await self.keys.reload(store)
        elif topic == "person":
            await self.people.reload(store)

    def follow(self, catch_up: Callable[[], Awaitable[bool]]) -> None:
        """Other replicas change the registers too: `catch_up` takes over what they did, by `reload`."""
        for register in (self.agents, self.keys, self.people):
            register.catch_up = catch_up

    async def open_local_door(self, data_dir: Path, token: str | None = None) -> None:
        """Let whoever can read the data directory act as the local operator: a new token at each start.

        Writes DATA_DIR/operator.token, readable by its owner only. `token`: one that was written already.
        """
        await self.people.ensure_local_operator()
        if token is not None:
            known_secrets.remember(OPERATOR_TOKEN, token)
            self.people.trust_local_token(token)
            return
        secret = tokens.mint(tokens.LOCAL_OPERATOR, self._random_bytes)
        known_secrets.remember(OPERATOR_TOKEN, secret)
        self.people.trust_local_token(secret)
        write_operator_token(data_dir, secret)

    def _agent_changed(self, agent: Agent | None, agent_id: str) -> None:
        self.keys.rebind(agent, agent_id)


def new_operator_token(data_dir: Path, random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """A token for the local operator, written where only who may read the data directory finds it."""
    secret = tokens.mint(tokens.LOCAL_OPERATOR, random_bytes)
    write_operator_token(data_dir, secret)
    return secret


def write_operator_token(data_dir: Path, secret: str) -> None:
    """Replace DATA_DIR/operator.token, readable by its owner only."""
    path = data_dir / OPERATOR_TOKEN
    fresh = data_dir / f".{OPERATOR_TOKEN}.new"
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
    fresh.replace(path)
