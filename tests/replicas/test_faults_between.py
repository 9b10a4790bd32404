"""One replica ends in the middle of what people approved: the other finds it out, tells who waits, and repeats nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from gateway.approvals.case import State
from gateway.replicas import BEAT_S
from gateway.shared_footing import LOOK_S
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.beside import Beside
from tests.invariants.counter import Counter
from tests.replicas.house import Pair, code_of, configure, deafen, footing, pay, until, vote

HOLD_S = 60.0
SOON_S = BEAT_S + LOOK_S + 2.0  # to end what it left open, and to be told of it; the rest is for a slow machine


async def end(pair: Pair) -> None:
    """End the first replica, as the other does once it has been silent for long enough."""
    beside = Beside(pair.database_url, name="test")
    assert await asyncio.to_thread(beside.run, lambda c: rows.end(c, footing(pair.one.running.app).replica))
    await asyncio.to_thread(beside.close)


async def test_an_approved_call_of_an_ended_replica_is_unknown_and_is_not_made_again(pair: Pair) -> None:
    """Nor does who waits for it at the other, which hears no signals, wait for as long as callers are held."""
    configure(pair.folder, hold_s=HOLD_S)
    await pair.reload()
    here, there = await pair.key()
    rita = await pair.reviewer(pair.one, "rita")
    rooms = [bank.running.app.approvals for bank in pair.both]
    deafen(pair.other)
    call = asyncio.create_task(pay(pair.one, here, "cut-off"))

    async def pending() -> Any:
        return (await rooms[1].find(status="pending", limit=10)).cases

    (case,) = await until(pending, "a case")
    waiting = asyncio.create_task(pay(pair.other, there, "cut-off"))

    async def waits() -> bool:
        return rooms[1].waiting_callers == 1

    await until(waits, "a caller at the other")
    with pair.ledger_stalled():
        assert (await vote(rita, await Counter(pair.one).shown(rita, case.id))).status_code == 200

        async def runs() -> bool:
            return (await rooms[1].case(case.id)).state is State.EXECUTING

        await until(runs, "the attempt at the first, seen from the other")
        await end(pair)
        ended_s = time.monotonic()
        assert code_of(await asyncio.wait_for(waiting, HOLD_S / 2)) == "outcome_unknown"
        assert time.monotonic() - ended_s < SOON_S
    await asyncio.wait_for(call, HOLD_S / 2)  # whatever is told there, it can't be put on record any more

    async def ended() -> bool:  # the case and the intent are ended each by itself, in either order
        return "action.result" in await Counter(pair.other).went(case.id)

    await until(ended, "the result of what was begun")
    went = await Counter(pair.other).went(case.id)
    assert (went.count("action.intent"), went.count("action.result")) == (1, 1), went
    assert code_of(await pay(pair.other, there, "cut-off")) == "outcome_unknown"
    assert pair.paid("cut-off") <= 1  # the ledger gives up where its books are away for long
    found = {"outcome": "succeeded" if pair.paid("cut-off") else "failed", "note": "Looked up in the ledger."}
    async with pair.other.running.operator() as operator:
        said = await operator.post(f"/api/v1/approvals/{case.id}/reconcile", json=found)
        assert said.status_code == 200, said.text
    assert pair.paid("cut-off") <= 1
    await pair.verified()
