"""A governor for tests of waiting: every call waits until this person has said something."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.actions import Action, Caller, Decision, Effect, Reply, ToolTarget
from gateway.doors.mcp import Ladder
from gateway.errors import Refusal
from gateway.running import Running
from tests.doors.mcp.house import tool

CASE = "0199-case"
QUICK = Ladder(leg_s=0.02, legs=3, progress_s=5.0, first_beat_s=0.01, beat_s=0.01)
ARGUMENTS = {"to": "ada", "amount_cents": 900_000}
DONE = Reply(body=b'{"content":[{"type":"text","text":"paid"}]}')
EXPIRES = "2026-11-23T06:00:00Z"


def waits(state: str = "pending") -> Refusal:
    detail = {"case": CASE, "state": state, "expires": EXPIRES}
    return Refusal("approval_required", "It waits.", rules=("transfer.large",), retry_after_s=2, detail=detail)


class Person:
    """Stands in for the governor."""

    def __init__(self) -> None:
        self.said = asyncio.Event()
        self.outcome: Reply | Refusal = DONE
        self.begins = asyncio.Event()  # set: calls wait for the person, and not only for a slow tool
        self.begins.set()
        self.replayed = False
        self.silent_s = 0.05  # how long those are held that are held as configured
        self.running: list[Running] = []
        self.refusals: list[Refusal] = []
        self.status: dict[str, Any] | Refusal = Refusal("not_found", "You have no case of this id.")
        self.asked: list[tuple[Action, str, float]] = []

    def say(self, outcome: Reply | Refusal = DONE) -> None:
        self.outcome = outcome
        self.said.set()

    def start(self, action: Action, *, hold_s: float | None = None) -> Running:
        running = Running(action, None, hold_s)
        running.decision = Decision(effect=Effect.ESCALATE, rules=("transfer.large",))
        running.task = asyncio.get_running_loop().create_task(self._hold(running))
        self.running.append(running)
        return running

    async def _hold(self, running: Running) -> Reply | None:
        await self.begins.wait()
        running.replayed = self.replayed
        if self.said.is_set() and isinstance(self.outcome, Reply) and not self.replayed:
            return self.outcome  # nobody needs to be asked
        running.wait_for(CASE)
        try:
            await asyncio.wait_for(self.said.wait(), self.silent_s if running.hold_s is None else running.hold_s)
        except TimeoutError:
            raise waits() from None
        if isinstance(self.outcome, Refusal):
            raise self.outcome
        return self.outcome

    async def approval_status(self, action: Action, case_id: str, wait_s: float) -> dict[str, Any]:
        self.asked.append((action, case_id, wait_s))
        if wait_s:
            await asyncio.wait_for(self.said.wait(), wait_s)
        if isinstance(self.status, Refusal):
            raise self.status
        return self.status

    async def list_tools(self, _: Action) -> tuple[ToolTarget, ...]:
        return (tool("ledger", "transfer"), tool("ledger", "gateway__approval_status"))

    async def admit(self, _: Action) -> None: ...

    async def refuse(self, _: Action, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def unauthenticated(self) -> None:
        return None

    def server_known(self, _: str, __: Caller) -> bool:
        return True
