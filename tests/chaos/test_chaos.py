"""The engines and a replica die, stand still and forget, under load: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.chaos.faults import CUTTING, FAULTS, Fault, postgres_killed, replica_killed, replicas_replaced
from tests.chaos.house import House, house
from tests.chaos.judging import judge
from tests.chaos.load import HELD, LARGE_CENTS, Load

RECOVERED_S = 30.0
EXHAUSTED_S = 60.0


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("chaos")) as started:
        yield started


@pytest.mark.timeout(110)
async def test_a_database_and_a_replica_die_under_load(replicas: House) -> None:
    async with loaded(replicas, "short") as load:
        for fault in (postgres_killed, replica_killed):
            await fault(replicas.topology)
            await load.steady(RECOVERED_S)
    await judge(replicas, load, cuts=True)


@pytest.mark.drill
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_whatever_dies_stands_still_or_forgets(
    replicas: House, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints a row of docs/operations.md."""
    async with loaded(replicas, fault.__name__.replace("_", "-")) as load:
        processes = [gateway.pid for gateway in replicas.topology.gateways]
        began_s = time.monotonic()
        await fault(replicas.topology)
        over_s = time.monotonic()
        await load.steady(RECOVERED_S)
        await load.exhaust(EXHAUSTED_S)
    row = (over_s - began_s, load.failed_for_s(began_s), load.back_after_s(over_s), load.slowest_s(began_s))
    with capsys.disabled():
        print("\n| {} | {:.1f} s | {:.1f} s | {:.1f} s | {:.1f} s |".format(fault.__name__, *row), end=" ")
        print(dict(load.claims.statuses), dict(load.claims.told), end=" ")
    await judge(replicas, load, cuts=fault in CUTTING)
    # Nobody was ended, and nobody gave up, for what was not a gateway's own fault.
    assert fault in CUTTING or [gateway.pid for gateway in replicas.topology.gateways] == processes


@pytest.mark.drill
@pytest.mark.timeout(180)
async def test_a_rolling_restart_fails_no_request_and_cuts_no_stream(replicas: House) -> None:
    async with loaded(replicas, "rolling") as load:
        # What waits for a person waits through it all, and comes back at whichever replica is asked.
        await load.send_person_away()
        held = asyncio.create_task(load.paid(LARGE_CENTS, EXHAUSTED_S))
        await replicas_replaced(replicas.topology)
        assert not held.done()
        load.person_is_away = False
        await held
        await load.steady(RECOVERED_S)
    assert set(load.claims.statuses) <= {"200", "402", HELD}, load.claims
    assert all(probe.good for probe in load.probes)
    await judge(replicas, load, cuts=False)


@contextlib.asynccontextmanager
async def loaded(replicas: House, agent: str) -> AsyncIterator[Load]:
    """A load of an agent with a budget of its own, that goes well. It is stopped however the test ends, or what it
    leaves open fails a later test."""
    load = Load(replicas, agent, await asyncio.to_thread(replicas.agent, agent))
    load.start()
    try:
        await load.steady(RECOVERED_S)
        yield load
    finally:
        await load.stop()
