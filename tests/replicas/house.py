"""Two whole gateways in the test's own process on one PostgreSQL and Redis, with the quickstart's ledger behind both.

They share configuration, policies and keys, as replicas do; each has a data directory of its own.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
from pydantic import SecretStr

from gateway.app import App
from gateway.audit.check import verify
from gateway.catalog.catalog import Catalog
from gateway.documents import errors
from gateway.identity import Role
from gateway.keys import make_keys
from gateway.process import Process
from gateway.shared_footing import Shared
from tests.bank_house import Bank
from tests.footing import ORIGIN, PUBLIC_URL
from tests.gateway_house import CONFIG, ROOT, Running
from tests.invariants.counter import Counter

PATIENCE_S = 20.0
_GRANTED = "teams: {finance: {servers: {ledger: {max_risk: critical, unattended: [read, write]}}}}"


def lay_out(folder: Path) -> None:
    """The files that all replicas read: configuration, policies, tools, and the shared keys."""
    shutil.copytree(ROOT / "policies", folder / "policies")
    grants = folder / "policies" / "grants" / "data.yaml"
    grants.write_text(grants.read_text().replace("teams: {}", _GRANTED))
    (folder / "tools_registry").mkdir()
    shutil.copy(ROOT / "tools_registry" / "ledger.yaml", folder / "tools_registry")
    configure(folder)
    make_keys(folder / "keys", ORIGIN, is_new=True)


def configure(folder: Path, *, hold_s: float = 0.05, limits: str = "") -> None:
    """Write gateway.yaml; who runs already has to be told to read it."""
    approvals = f"approvals: {{hold_s: {hold_s}, groups: [treasury, risk]}}\n"
    (folder / "gateway.yaml").write_text(f"{CONFIG}{limits}{approvals}")


def process_of(folder: Path, name: str, database_url: str, redis_url: str) -> Process:
    """What the replica `name` is told by its environment."""
    return Process(
        public_url=PUBLIC_URL,
        data_dir=folder / name,
        config=folder / "gateway.yaml",
        keys_dir=folder / "keys",
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
    )


def footing(app: App) -> Shared:
    """What the replica stands on."""
    assert isinstance(app.footing, Shared)
    return app.footing


def deafen(bank: Bank) -> None:
    """From now on no signal of another replica is heard."""
    footing(bank.running.app).signals.handlers = {}


async def pay(bank: Bank, agent: httpx.AsyncClient, reference: str, cents: int = 90_000) -> dict[str, Any]:
    """Ask for a transfer, as large as people must approve it unless told otherwise: the JSON-RPC answer."""
    return await Counter(bank).call(agent, to="acme-gmbh", amount_cents=cents, reference=reference)


def code_of(answer: dict[str, Any]) -> str:
    """Of a refusal, whether it is told to the model or to its client."""
    told: dict[str, Any] = answer["error"]["data"] if "error" in answer else answer["result"]["_meta"]
    return str(told["gateway/code"])


async def vote(at: httpx.AsyncClient, shown: dict[str, Any], **headers: str) -> httpx.Response:
    """Approve what a person was shown."""
    said = {"decision": "approve", "presented_digest": shown["presented_digest"]}
    return await at.post(f"/api/v1/approvals/{shown['id']}/reviews", json=said, headers=headers)


def deaf_and_blind(bank: Bank) -> None:
    """From now on a replica hears no signal and does not look by itself at what others changed, nor beats."""
    deafen(bank)
    shared = footing(bank.running.app)
    for task in shared.group._tasks:
        task.cancel()


async def until(look: Callable[[], Awaitable[Any]], what: str, seconds: float = PATIENCE_S) -> Any:
    """What `look` gives, once it is something."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := await look()):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not in time: {what}") from None
    return found


class Pair:
    """The replicas `one` and `other`, as the tellers of one bank. An async context manager that starts and stops them."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        redis_url: str,
        ledger_db: Path,
        *,
        others_database_url: str | None = None,
    ) -> None:
        """`others_database_url`: another way to the same database, for `other`."""
        self.folder = folder
        self.database_url = database_url
        self.redis_url = redis_url
        self._ledger_db = ledger_db
        self._entered = AsyncExitStack()
        lay_out(folder)
        self.one, self.other = (
            Bank(Running(App(process_of(folder, name, url, redis_url)), folder), ledger_db)
            for name, url in (("one", database_url), ("other", others_database_url or database_url))
        )
        self.both = (self.one, self.other)

    async def __aenter__(self) -> Self:
        for bank in self.both:
            await bank.running.app.start()
            self._entered.push_async_callback(bank.running.app.stop, 1)
        for bank in self.both:
            await until(partial(_has_tools, bank.running.app.catalog), "the ledger's tools")
            await until(partial(_is_whole, bank.running.app), "limits that are counted together")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.aclose()

    @asynccontextmanager
    async def newcomer(self, name: str = "late") -> AsyncIterator[App]:
        """A further replica, not started yet; stopped at the end."""
        app = App(process_of(self.folder, name, self.database_url, self.redis_url))
        yield app
        await app.stop(1)

    async def reload(self) -> None:
        """Put the files in force at both."""
        for bank in self.both:
            assert errors(await bank.running.app.reload("test")) == []

    async def asks(self, obligation: str) -> None:
        """Policy asks more of people from now on, at both."""
        await Counter(self.one).asks(obligation)
        await self.reload()

    async def key(self, agent_id: str = "reader") -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
        """One new key, made at the first, as a client of each."""
        _, secret = await self.one.running.app.registry.keys.create(agent_id, person="operator")
        clients = (self.one.running.client(secret), self.other.running.client(secret))
        for client in clients:
            await self._entered.enter_async_context(client)
        return clients

    async def reviewer(self, bank: Bank, person_id: str) -> httpx.AsyncClient:
        """A person, added and signed in at one of the replicas."""
        return await self._entered.enter_async_context(await bank.reviewer(person_id, Role.REVIEWER))

    def paid(self, reference: str) -> int:
        """How often the ledger has made a transfer."""
        with closing(sqlite3.connect(self._ledger_db)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM transfers WHERE reference = ?", (reference,)).fetchone()
        return int(count)

    @contextmanager
    def ledger_stalled(self) -> Iterator[None]:
        """The ledger takes transfers and makes none while this lasts: somebody else has its books."""
        with closing(sqlite3.connect(self._ledger_db, isolation_level=None)) as books:
            books.execute("BEGIN IMMEDIATE")
            yield
            books.execute("ROLLBACK")

    async def verified(self) -> None:
        """The trail of both, and the cases held against it, as an auditor finds them."""
        app = self.other.running.app
        await app.log.caught_up()

        async def signed() -> bool:
            return app.log.signed_size >= app.log.size > 0

        await until(signed, "a signature under all records")
        report = await asyncio.to_thread(verify, app.footing.source())
        assert report.ok, "\n".join(report.lines())


async def _is_whole(app: App) -> bool:
    return not any(one.id == "redis" and one.reason is not None for one in app.health.conditions())


async def _has_tools(catalog: Catalog) -> bool:
    return bool(catalog.tools("ledger"))
