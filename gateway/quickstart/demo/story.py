"""The story, step by step: what an agent may do, what it may not, and what happens once because a person says so."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from typing import Any

from gateway.quickstart.demo import clients
from gateway.quickstart.demo.clients import Answer, Tools
from gateway.quickstart.demo.person import CLI, Person
from gateway.quickstart.demo.stage import Stage
from gateway.quickstart.demo.told import NotAsTold, Step, say

PAYEE, STRANGER = "acme-gmbh", "mallory-ltd"
SMALL_CENTS = 100
LARGE_CENTS = 10_100  # above the 10,000 that pass without a person
NEEDED_CENTS = SMALL_CENTS + LARGE_CENTS
GUIDANCE = "Split it by invoice and pay each one at its own due date."
RECORD_S = 10.0  # a record rides the next commit
WAITS = re.compile("waiting for approval|not executed yet", re.IGNORECASE)
PATIENCE = 20  # identical calls; each is held for a while


class TooLittleMoney(Exception):  # noqa: N818 - the story goes on elsewhere
    """The ledger of this gateway can't pay for the story any more; the message says so."""


class Story:
    """One telling. `steps` has what was told so far."""

    def __init__(self, stage: Stage, *, by_hand: bool) -> None:
        self._stage = stage
        self._person = Person(stage, by_hand)
        self._run = uuid.uuid4().hex[:12]  # makes what this run asks for its own
        self._session = f"demo-{self._run}"
        self.steps: list[Step] = []

    async def play(self) -> None:
        """Raises NotAsTold at the first step that is not as told, TooLittleMoney before anything was done."""
        async with clients.tools(self._stage.url, self._stage.key, self._session) as ledger:
            balance = await self._balance(ledger)
            await asyncio.to_thread(self._models)
            balance = await self._small(ledger, balance)
            await self._denied(ledger)
            await self._unknown(ledger)
            balance = await self._approved(ledger, balance)
            await self._not_twice(ledger, balance)
            await self._refused_by_person(ledger, balance)
        await asyncio.to_thread(self._verified)

    # ------------------------------------------------------------ what policy decides alone

    async def _balance(self, ledger: Tools) -> int:
        answer = await ledger.call("get_balance", {})
        cents = _cents(answer)
        if cents < NEEDED_CENTS:
            raise TooLittleMoney(
                f"The ledger of the running gateway holds {cents} cents, too little for the {NEEDED_CENTS} that the"
                " story pays."
            )
        await self._tell("read the balance", clients.MCP, answer, f"{cents} cents")
        return cents

    def _models(self) -> None:
        stage, session = self._stage, self._session
        answer = clients.chat(stage.url, stage.key, session)
        _expect(bool(answer.text), "The model's answer was empty.")
        self._tell_now("ask the model", clients.OPENAI, answer, "answered", answer.text)
        answer, pieces = clients.streamed_chat(stage.url, stage.key, session)
        _expect(bool(answer.text), "The model's streamed answer was empty.")
        self._tell_now("ask it, streaming", clients.OPENAI, answer, f"answered in {pieces} pieces", answer.text)

    async def _small(self, ledger: Tools, balance: int) -> int:
        answer = await ledger.call("transfer", self._payment(PAYEE, SMALL_CENTS, "small"))
        _expect(_cents(answer) == balance - SMALL_CENTS, f"A small transfer did not change the balance: {answer.text}")
        await self._tell("a small transfer", clients.MCP, answer, f"{_transfer(answer)}: paid {SMALL_CENTS} cents")
        return _cents(answer)

    async def _denied(self, ledger: Tools) -> None:
        answer = await ledger.call("transfer", self._payment(STRANGER, SMALL_CENTS, "stranger"))
        told = answer.refused and PAYEE in answer.text
        _expect(told, f"A payee who is not listed was not refused with what would pass: {answer.text}")
        await self._tell("pay a stranger", clients.MCP, answer, "denied, with the reason", answer.text, effect="deny")

    async def _unknown(self, ledger: Tools) -> None:
        answer = await ledger.call("close_account", {})
        told = answer.refused and "Unknown tool" in answer.text
        _expect(told, f"close_account was not an unknown tool: {answer.text}")
        await self._tell("close the account", clients.MCP, answer, answer.text[:40], effect="deny")

    # ------------------------------------------------------------ what a person decides

    async def _approved(self, ledger: Tools, balance: int) -> int:
        payment = self._payment(PAYEE, LARGE_CENTS, "large")
        waits = asyncio.create_task(_until_ended(ledger, payment))
        try:
            case = await self._waits(payment, "a large transfer", waits)
            decided = await asyncio.to_thread(self._person.approve, case)
            _expect(
                decided["state"] in ("approved", "executing", "succeeded"),
                f"The case {case['id']} was not approved but is {decided['state']}.",
            )
            self._add(Step("a person approves", self._person.client, "approve", "-", decided["state"], case["id"]))
            answer = await waits
        finally:
            waits.cancel()
        _expect(not answer.refused, f"The approved transfer was not paid: {answer.text}")
        _expect(_cents(answer) == balance - LARGE_CENTS, f"The approved transfer paid another amount: {answer.text}")
        told = f"{_transfer(answer)}: paid {LARGE_CENTS} cents"
        self._add(Step("the transfer runs", clients.MCP, "allow", _rules(case), told, case["action"]))
        return _cents(answer)

    async def _not_twice(self, ledger: Tools, balance: int) -> None:
        answer = await ledger.call("transfer", self._payment(PAYEE, LARGE_CENTS, "large"))
        stored = answer.replayed and not answer.refused
        _expect(stored, f"The identical call was not given the stored result: {answer.text}")
        now = await ledger.call("get_balance", {})
        paid_once = _cents(answer) == _cents(now) == balance
        _expect(paid_once, f"The identical call paid again: {_cents(now)} cents are left instead of {balance}.")
        told = f"{_transfer(answer)} again, nothing paid"
        await self._tell("the same call again", clients.MCP, answer, told, effect=None)

    async def _refused_by_person(self, ledger: Tools, balance: int) -> None:
        payment = self._payment(PAYEE, LARGE_CENTS, "too-much")
        waits = asyncio.create_task(_until_ended(ledger, payment))
        try:
            case = await self._waits(payment, "another large one", waits)
            decided = await asyncio.to_thread(self._person.deny, case, GUIDANCE)
            _expect(decided["state"] == "denied", f"The case {case['id']} was not denied but is {decided['state']}.")
            self._add(Step("a person denies", self._person.client, "deny", "-", "denied, with guidance", case["id"]))
            answer = await waits
        finally:
            waits.cancel()
        guidance = decided.get("why") or GUIDANCE
        told = answer.refused and guidance in answer.text
        _expect(told, f"The denied transfer did not come back with the person's guidance: {answer.text}")
        now = await ledger.call("get_balance", {})
        _expect(_cents(now) == balance, f"The denied transfer was paid: {_cents(now)} cents are left.")
        self._add(
            Step("the agent is told", clients.MCP, "deny", _rules(case), "not paid, told why", case["id"]), guidance
        )

    async def _waits(self, payment: dict[str, Any], name: str, waits: asyncio.Task[Answer]) -> dict[str, Any]:
        found = asyncio.create_task(asyncio.to_thread(self._person.find, payment["reference"]))
        await asyncio.wait({found, waits}, return_when=asyncio.FIRST_COMPLETED)
        if waits.done() and not found.done():
            raise NotAsTold(f"A transfer of {LARGE_CENTS} cents did not wait for a person: {waits.result().text}")
        case = await found
        self._add(Step(name, clients.MCP, "escalate", _rules(case), "waits for a person", case["id"]))
        return case

    # ------------------------------------------------------------ what stays

    def _verified(self) -> None:
        deadline_s = time.monotonic() + RECORD_S
        report = self._stage.gateway("audit", "verify")
        while report["verdict"] == "unsigned" and time.monotonic() < deadline_s:  # its first checkpoint is being signed
            time.sleep(0.2)
            report = self._stage.gateway("audit", "verify")
        _expect(report["verdict"] == "operator-signed", f"The trail was only found {report['verdict']}.")
        told = f"{report['verdict']}, {report['leaves']} records"
        self._add(Step("verify the trail", CLI, outcome=told))

    def _payment(self, to: str, amount_cents: int, what: str) -> dict[str, Any]:
        return {"to": to, "amount_cents": amount_cents, "reference": f"demo {self._run} {what}"}

    async def _tell(
        self, name: str, client: str, answer: Answer, told: str, detail: str = "", *, effect: str | None = "allow"
    ) -> None:
        await asyncio.to_thread(self._tell_now, name, client, answer, told, detail, effect=effect)

    def _tell_now(
        self, name: str, client: str, answer: Answer, told: str, detail: str = "", *, effect: str | None = "allow"
    ) -> None:
        """Add the step as the trail has it, which must be as the client was answered."""
        _expect(bool(answer.action), f"The step '{name}' was answered without the id of its action: {answer.text}")
        decision = self._decision(answer.action)
        found = str(decision["effect"])
        _expect(effect in (None, found), f"The step '{name}' should be {effect} and was {found}: {answer.text}")
        self._add(Step(name, client, found, ", ".join(decision["rules"]) or "-", told, answer.action), detail)

    def _decision(self, action: str) -> dict[str, Any]:
        deadline_s = time.monotonic() + RECORD_S
        while time.monotonic() < deadline_s:
            for record in self._stage.gateway("audit", "query", "--action", action):
                if record["decision"]:
                    decision: dict[str, Any] = record["decision"]
                    return decision
            time.sleep(0.1)
        raise NotAsTold(f"The trail has no decision on the action {action}.")

    def _add(self, step: Step, detail: str = "") -> None:
        self.steps.append(step)
        say(f"{len(self.steps):>2}. {step.name}: {step.outcome}" + (f": {detail}" if detail else ""))


async def _until_ended(ledger: Tools, payment: dict[str, Any]) -> Answer:
    """Call, and while the answer says that a person is awaited, make the identical call again: it attaches."""
    for _ in range(PATIENCE):
        answer = await ledger.call("transfer", payment)
        if not (answer.refused and WAITS.search(answer.text)):
            return answer
    raise NotAsTold(f"After {PATIENCE} identical calls the transfer still waits: {answer.text}")


def _cents(answer: Answer) -> int:
    cents = (answer.data or {}).get("balance_cents")
    if answer.refused or not isinstance(cents, int):
        raise NotAsTold(f"The ledger did not tell its balance: {answer.text}")
    return cents


def _transfer(answer: Answer) -> str:
    return str((answer.data or {}).get("transfer_id"))


def _rules(case: dict[str, Any]) -> str:
    return ", ".join(case["rules"]) or "-"


def _expect(as_told: bool, otherwise: str) -> None:
    if not as_told:
        raise NotAsTold(otherwise)
