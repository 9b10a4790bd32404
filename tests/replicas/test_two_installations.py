"""Installations with a database each on one Redis: they count and signal apart, as a database does that was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from structlog.testing import capture_logs

from gateway.actions import Cost
from gateway.app import App
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule
from gateway.quickstart.servers import PostgresServer, RedisServer
from gateway.shared_footing import Shared
from gateway.signals import Signals
from gateway.store.postgres.beside import Beside
from gateway.store.postgres.installation import installation
from tests.limits.house import act
from tests.limits.replicas import CHEAP
from tests.replicas.house import footing, lay_out, process_of, until

BUDGET = 1_000_000
TABLE = AllowanceTable(agent_default=Allowance(budgets=(BudgetRule(window="day", nanousd=BUDGET),)))


@asynccontextmanager
async def replica(folder: Path, name: str, database_url: str, redis_url: str) -> AsyncIterator[Shared]:
    """A replica under way, with a budget for each agent."""
    app = App(process_of(folder, name, database_url, redis_url))
    await app.start()
    try:
        footing(app).limits.reconfigure(TABLE)
        await footing(app).limits.tick()
        yield footing(app)
    finally:
        await app.stop(1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of replicas that need no ledger."""
    monkeypatch.delenv("LEDGER_URL", raising=False)
    lay_out(tmp_path)
    return tmp_path


async def spends(shared: Shared, nanousd: int) -> bool:
    """Whether so much could be spent there; then it was."""
    try:
        reservation = await shared.limits.reserve(act(max_tokens=nanousd), CHEAP)
    except Refusal as refusal:
        assert refusal.code == "budget_exhausted", refusal.message
        return False
    await shared.writer.write(shared.limits.settle(reservation, Cost(nanousd=nanousd)))
    return True


async def given_back(*all_of_them: Shared) -> None:
    """What they have ahead and do not use is free again: two ticks, as it is kept for one."""
    for _ in range(2):
        for shared in all_of_them:
            await shared.limits.tick()


def id_of(url: str) -> str:
    beside = Beside(url, name="test")
    try:
        return beside.run(installation)
    finally:
        beside.close()


async def test_they_count_apart(folder: Path, postgres_url: str, other_postgres_url: str, redis_url: str) -> None:
    async with (
        replica(folder, "ours", postgres_url, redis_url) as ours,
        replica(folder, "theirs", other_postgres_url, redis_url) as theirs,
    ):
        for shared in (ours, theirs):
            assert await spends(shared, 700_000)
        async with replica(folder, "late", postgres_url, redis_url) as late:
            assert not await spends(late, 300_001)
            await given_back(ours, late)
            assert await spends(late, 300_000)
        assert not await spends(theirs, 300_001)
        assert await spends(theirs, 300_000)


async def test_a_database_beside_an_old_redis_starts_with_its_own_spend(
    folder: Path, postgres_url: str, other_postgres_url: str, redis_url: str, own_redis: RedisServer
) -> None:
    async with replica(folder, "elsewhere", other_postgres_url, own_redis.url) as elsewhere:
        assert await spends(elsewhere, 600_000)
    async with replica(folder, "old", postgres_url, redis_url) as old:
        assert await spends(old, 300_000)
        async with replica(folder, "new", other_postgres_url, redis_url) as new:  # the old one's counters are all there
            assert not await spends(new, 400_001)
            await given_back(new)
            assert await spends(new, 400_000)
        await given_back(old)
        assert await spends(old, 700_000)


async def test_they_signal_apart(folder: Path, postgres_url: str, other_postgres_url: str, redis_url: str) -> None:
    async with (
        replica(folder, "teller", postgres_url, redis_url) as teller,
        replica(folder, "ours", postgres_url, redis_url) as ours,
        replica(folder, "theirs", other_postgres_url, redis_url) as theirs,
    ):
        heard: list[str] = []

        async def ours_hears(what: str) -> None:
            heard.append(f"ours {what}")

        async def theirs_hears(what: str) -> None:
            heard.append(f"theirs {what}")

        async def all_listen() -> bool:
            return all(one.signals.is_connected for one in (teller, ours, theirs))

        async def something() -> bool:
            return bool(heard)

        ours.signals.handlers = {"test": ours_hears}
        theirs.signals.handlers = {"test": theirs_hears}
        await until(all_listen, "all listen")
        teller.signals.tell("test", "hello")
        await until(something, "a signal")
        await asyncio.sleep(0.1)  # as long again, for one that must not come
        assert heard == ["ours hello"]


def test_an_installation_is_its_database_as_long_as_that_is_not_another(
    postgres_server: PostgresServer, postgres_url: str, other_postgres_url: str
) -> None:
    name = "test_replaced"
    url = postgres_server.create(name)
    try:
        first = id_of(url)
        assert (len(first), int(first, 16) > 0) == (16, True)
        assert id_of(url) == first
        postgres_server.drop(name)
        postgres_server.create(name)
        assert len({first, id_of(url), id_of(postgres_url), id_of(other_postgres_url)}) == 4
    finally:
        postgres_server.drop(name)


async def test_a_role_that_may_not_ask_for_it_does_not_start(
    folder: Path, postgres_server: PostgresServer, postgres_url: str, redis_url: str
) -> None:
    with psycopg.connect(postgres_url) as database:
        assert database.execute(b"SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
    admin = postgres_server.admin_url.rpartition("/")[0] + "/" + postgres_url.rpartition("/")[2]
    with psycopg.connect(admin, autocommit=True) as database:
        database.execute(b"REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    with pytest.raises(Refusal, match=r"GRANT EXECUTE ON FUNCTION pg_control_system\(\)"):
        await App(process_of(folder, "late", postgres_url, redis_url)).start()


async def test_who_may_not_listen_is_told_so_once(redis_url: str) -> None:
    secret = "not-secret"
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", f">{secret}", "~gw:*", "+@all", "resetchannels")
    signals = Signals(f"redis://narrow:{secret}@{redis_url.rpartition('@')[2]}", "replica")
    with capture_logs() as logs:
        signals.start("installation")

        async def told() -> bool:
            return bool(logs)

        await until(told, "a line in the log")
        await asyncio.sleep(0.6)  # it has tried again meanwhile
        await signals.stop()
    (line,) = logs
    assert line["event"] == "signals_away"
    assert line["reason"].startswith("Redis refuses (NoPermissionError); check ")
    assert "gateway:signals:*" in line["reason"]
