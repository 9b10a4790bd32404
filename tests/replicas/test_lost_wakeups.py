"""A caller who waits at one replica for what happens at another is answered also where no signal of it arrives."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.approvals.case import Choice
from gateway.quickstart.servers import RedisServer
from gateway.shared_footing import LOOK_S
from tests.bank_house import Bank
from tests.invariants.counter import is_paid
from tests.replicas.house import Pair, code_of, configure, deafen, pay, until

HOLD_S = 60.0
SOON_S = LOOK_S + 2.0  # by the look that needs no signal; the rest is for a slow machine


async def holding(pair: Pair) -> None:
    """Callers are held for far longer than any look takes, at both."""
    configure(pair.folder, hold_s=HOLD_S)
    await pair.reload()


async def waits(pair: Pair, bank: Bank, agent: Any, reference: str) -> tuple[asyncio.Task[dict[str, Any]], str]:
    """A caller who is held at `bank`, and its case."""
    call = asyncio.create_task(pay(bank, agent, reference))

    async def case() -> Any:
        found = (await pair.one.running.app.approvals.find(status="pending", limit=1)).cases
        return found if bank.running.app.approvals.waiting_callers else None

    (found,) = await until(case, "a caller who waits")
    return call, found.id


async def decide(bank: Bank, case_id: str, choice: Choice) -> None:
    approvals = bank.running.app.approvals
    shown = await approvals.case(case_id)
    await approvals.vote(case_id, "rita", choice, presented_digest=shown.presented_digest, guidance="Decided.")


@pytest.mark.parametrize("choice", [Choice.APPROVE, Choice.DENY])
async def test_who_waits_at_a_deaf_replica_is_answered_by_its_next_look(pair: Pair, choice: Choice) -> None:
    """Decided right after the caller began to wait, which is before the replica has looked for the first time."""
    await holding(pair)
    here, there = await pair.key()
    await pair.reviewer(pair.one, "rita")
    deafen(pair.other)
    for round_ in range(3):
        reference = f"deaf-{round_}"
        call, case_id = await waits(pair, pair.other, there, reference)
        decided_s = time.monotonic()
        await decide(pair.one, case_id, choice)
        answer = await asyncio.wait_for(call, HOLD_S / 2)
        assert time.monotonic() - decided_s < SOON_S
        if choice is Choice.APPROVE:
            assert is_paid(answer)
            assert pair.paid(reference) == 1
        else:
            assert code_of(answer) == "approval_denied"
    await here.aclose()


async def test_a_look_that_was_cut_off_has_forgotten_nothing_of_what_callers_have_seen(pair: Pair) -> None:
    await holding(pair)
    _, there = await pair.key()
    await pair.reviewer(pair.one, "rita")
    deafen(pair.other)
    approvals = pair.other.running.app.approvals
    call, case_id = await waits(pair, pair.other, there, "two-looks")
    await approvals.look_after_waiting()
    looks = [asyncio.create_task(approvals.look_after_waiting()) for _ in range(3)]
    for look in looks:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)
    await decide(pair.one, case_id, Choice.APPROVE)
    assert is_paid(await asyncio.wait_for(call, SOON_S + 1))
    assert pair.paid("two-looks") == 1


@pytest.mark.parametrize("fault", ["killed", "paused"])
async def test_while_redis_is_away_who_waits_at_the_other_replica_is_answered(
    apart: Pair, own_redis: RedisServer, fault: str
) -> None:
    await holding(apart)
    _, there = await apart.key()
    await apart.reviewer(apart.one, "rita")
    call, case_id = await waits(apart, apart.other, there, fault)
    await asyncio.to_thread(own_redis.kill if fault == "killed" else own_redis.pause)
    decided_s = time.monotonic()
    await decide(apart.one, case_id, Choice.APPROVE)
    assert is_paid(await asyncio.wait_for(call, HOLD_S / 2))
    assert time.monotonic() - decided_s < SOON_S
    assert apart.paid(fault) == 1
