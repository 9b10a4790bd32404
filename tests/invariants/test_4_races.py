"""Invariant 4 under races: whoever wants the same case at the same moment, one wins, both are told so, and the ledger's own
rows agree. Each race is walked through every order of its steps (`tests/interleaving.py`), on the whole gateway."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any, NamedTuple

import pytest

from gateway.approvals.case import Case, Choice, State
from gateway.audit.check import verify
from gateway.documents import errors
from gateway.errors import Refusal
from gateway.identity import Role
from tests.bank_house import LARGE, Bank
from tests.footing import placed_and_signed
from tests.gateway_house import CONFIG
from tests.interleaving import Orders, Turns

APPROVE, DENY = Choice.APPROVE, Choice.DENY
AMOUNT_CENTS = 10_001  # above what passes without a person; the balance is enough for every round
HOLD_S = 20
TTL_S = 4 * 3600
FROZEN = """\
deny contains {"rule": "payments_frozen", "reason": "Payments are frozen."} if {
	input.target.id == "ledger__transfer"
	input.action.kind == "tool.call"
}
"""
FOUR_EYES = """\
escalate contains {"rule": "four_eyes", "reason": "Two.", "obligations": [{"approval": {"quorum": [{"approve": 2}]}}]} if {
	input.target.id == "ledger__transfer"
	input.action.kind == "tool.call"
}
"""


class Heard(NamedTuple):
    """What an agent is told: a result, or a code and words."""

    code: str | None
    text: str
    transfer_id: str | None
    replayed: bool


class Track:
    """The bank, an agent who pays, and people who decide at the same moment."""

    def __init__(self, bank: Bank, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bank = bank
        self.app = bank.running.app
        self.turns = turns
        self._monkeypatch = monkeypatch
        self._numbers = itertools.count(1)
        self._ahead_ns = 0
        self.reference = ""
        self.hold_s: float = HOLD_S

    async def open(self) -> None:
        await self.configure()
        self._monkeypatch.setattr(self.app.governor.escalating, "_hold_s", lambda: self.hold_s)
        self.turns.count(self.app.writer, "submit")
        self.turns.count(self.app.writer, "read")
        self.agent = await self.bank.running.agent()
        accept = "application/json, text/event-stream"
        self.agent.headers.update({"accept": accept, "mcp-protocol-version": "2025-11-25", "host": "127.0.0.1"})
        for person in ("rita", "rob"):
            await self.app.registry.people.add(person, name=person, roles=(Role.REVIEWER,), by="operator")

    async def configure(self, approvals: str = "", rule: str = "") -> None:
        folder = self.bank.running.folder
        (folder / "gateway.yaml").write_text(f"{CONFIG}approvals: {{ttl_s: {TTL_S}{approvals}}}\n")
        (folder / "policies" / "extra.rego").write_text(f"package gateway\n\n{rule}")
        assert errors(await self.app.reload("test")) == []

    def attempts(self, name: str = "") -> None:
        """What is approved is a racer of its own, or runs between two turns of the others."""
        attempting = self.app.governor.attempting
        self.turns.apart(attempting, "carry_out", name, lambda: bool(attempting._attempts))
        self._monkeypatch.setattr(self.app.governor.escalating, "_carry_out", attempting.carry_out)

    # ------------------------------------------------------------ who takes part

    async def pay(self) -> Heard:
        """The transfer of this round, as often as it is asked for; what its caller hears in the end."""
        arguments = {**LARGE, "amount_cents": AMOUNT_CENTS, "reference": self.reference}
        params = {"name": "ledger__transfer", "arguments": arguments}
        answer = await self.agent.post(
            "/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        )
        told = answer.json()
        replayed = answer.headers.get("x-gateway-replayed") == "true"
        if "error" in told:
            return Heard(told["error"]["data"]["gateway/code"], told["error"]["message"], None, replayed)
        result = told["result"]
        text = result["content"][0]["text"]
        if result["isError"]:
            return Heard(result["_meta"]["gateway/code"], text, None, replayed)
        return Heard(None, text, result["structuredContent"]["transfer_id"], replayed)

    async def opened(self) -> tuple[Case, asyncio.Task[Heard]]:
        """A new round: a case that waits for people, and its caller who is held."""
        self.reference = f"R-{next(self._numbers)}"
        caller = asyncio.create_task(self.pay())
        return await self.waiting(), caller

    async def left(self) -> Case:
        """A new round: a case whose caller was told to come back."""
        self.reference, self.hold_s = f"R-{next(self._numbers)}", 0.001
        assert (await self.pay()).code == "approval_required"
        self.hold_s = HOLD_S
        return await self.waiting()

    async def waiting(self) -> Case:
        async with asyncio.timeout(10):
            while not self.app.approvals.pending_count:
                await asyncio.sleep(0.001)
        (case,) = (await self.app.approvals.find(status="pending")).cases
        return case

    def vote(self, case: Case, person: str, choice: Choice = APPROVE) -> Coroutine[Any, Any, Case]:
        guidance = "Not like this." if choice is DENY else ""
        return self.app.approvals.vote(
            case.id, person, choice, presented_digest=case.presented_digest, guidance=guidance
        )

    async def time_is_up(self) -> None:
        """The case has run out of time, and the clock's tick comes."""
        if not self._ahead_ns:
            now_ns = self.app.clock.now_ns
            self._monkeypatch.setattr(self.app.clock, "now_ns", lambda: now_ns() + self._ahead_ns)
        self._ahead_ns += (TTL_S + 1) * 1_000_000_000
        await self.app.approvals.tick()

    async def suspend(self) -> None:
        await self.app.registry.agents.suspend("reader", person="operator", reason="Odd.")

    async def resume(self) -> None:
        await self.app.registry.agents.resume("reader", person="operator", reason="Fine.")

    # ------------------------------------------------------------ what came of it

    def rows(self) -> int:
        """Transfers of this round in the ledger."""
        with sqlite3.connect(self.bank.ledger_db) as connection:
            found = connection.execute("SELECT count(*) FROM transfers WHERE reference = ?", (self.reference,))
            (count,) = found.fetchone()
        connection.close()
        return int(count)

    async def ended(self, case: Case) -> Case:
        """The case once nothing more happens to it."""
        async with asyncio.timeout(10):
            while (case := await self.app.approvals.case(case.id)).state in (State.APPROVED, State.EXECUTING):
                await asyncio.sleep(0.001)
        return case

    async def ran_once(self, case: Case, *heard: Heard) -> None:
        """It was carried out, once, and everybody heard the same."""
        assert self.rows() == 1
        assert (await self.ended(case)).state is State.SUCCEEDED
        assert [attempt.outcome for attempt in await self.app.approvals.attempts(case.id)] == ["succeeded"]
        assert len({one.transfer_id for one in heard}) == 1, heard
        assert [one.code for one in heard] == [None] * len(heard), heard
        await self.only(case)

    async def never_ran(self, case: Case, state: State, code: str, *heard: Heard) -> None:
        """It was not carried out, and everybody heard why."""
        assert (await self.ended(case)).state is state
        assert self.rows() == 0
        assert await self.app.approvals.attempts(case.id) == []
        assert [one.code for one in heard] == [code] * len(heard), heard
        assert all(one.text.startswith("NOT executed.") or code == "agent_suspended" for one in heard), heard
        await self.only(case)

    async def only(self, case: Case) -> None:
        """This round has one case."""
        mine = [one for one in (await self.app.approvals.find(limit=200)).cases if self.reference in str(one.action)]
        assert [one.id for one in mine] == [case.id]


@pytest.fixture
async def track(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Track]:
    track = Track(bank, Turns(monkeypatch), monkeypatch)
    await track.open()
    yield track
    await placed_and_signed(track.app.log)
    report = await asyncio.to_thread(verify, track.app.footing.source())
    assert report.ok, list(report.lines())


def split(told: dict[str, Any]) -> tuple[list[Case], list[Refusal]]:
    """Who won, and who was refused."""
    won = [one for one in told.values() if isinstance(one, Case)]
    lost = [one for one in told.values() if isinstance(one, Refusal)]
    assert len(won) + len(lost) == len(told), told
    return won, lost


async def test_a_race_is_walked_in_every_order_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    logs = set()
    orders = Orders()
    for order in orders:
        log: list[str] = []

        async def racer(name: str, log: list[str] = log) -> None:
            for _ in range(3):
                await turns.at_once(partial(note, log, name))

        await turns.race(order, one=partial(racer, "1"), two=partial(racer, "2"))
        logs.add("".join(log))
    assert len(logs) == 20  # 3 of 6 places
    assert orders.rounds == 70  # each begins with a turn of its own


async def note(log: list[str], name: str) -> None:
    log.append(name)


# ------------------------------------------------------------ two reviewers


@pytest.mark.parametrize(("ritas", "robs"), [(APPROVE, APPROVE), (APPROVE, DENY), (DENY, APPROVE)])
async def test_of_two_reviewers_one_decides_and_the_other_is_told_what_it_became(
    track: Track, ritas: Choice, robs: Choice
) -> None:
    track.turns.watch(track.app.approvals, "case")
    track.turns.watch(track.app.trail, "case")
    track.attempts()
    winners = set()
    for order in Orders():
        case, caller = await track.opened()
        told = await track.turns.race(
            order,
            rita=partial(track.vote, case, "rita", ritas),
            rob=partial(track.vote, case, "rob", robs),
        )
        (won,), (lost,) = split(told)
        assert (lost.code, lost.http_status) == ("decided", 409)
        (vote,) = await track.app.approvals.votes(case.id)
        winners.add(vote.person)
        if vote.choice is APPROVE:
            assert won.state in (State.APPROVED, State.EXECUTING, State.SUCCEEDED)
            assert any(f"is {became} already" in lost.message for became in ("approved", "executing", "succeeded"))
            await track.ran_once(case, await caller)
        else:
            assert won.state is State.DENIED
            assert "is denied already" in lost.message
            heard = await caller
            assert "Not like this." in heard.text
            await track.never_ran(case, State.DENIED, "approval_denied", heard)
    assert winners == {"rita", "rob"}


async def test_of_two_reviewers_at_the_api_one_hears_409(track: Track) -> None:
    people = [track.bank.running.client(origin="http://gateway.test") for _ in range(2)]
    for person, browser in zip(("rosa", "rolf"), people, strict=True):
        browser.cookies = (await track.bank.running.person(person, Role.REVIEWER)).cookies
    for _ in range(4):
        case, caller = await track.opened()
        said = {"decision": "approve", "presented_digest": case.presented_digest}
        path = f"/api/v1/approvals/{case.id}/reviews"
        answers = await asyncio.gather(*(browser.post(path, json=said) for browser in people))
        people.reverse()
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        lost = next(answer.json() for answer in answers if answer.status_code == 409)
        assert (lost["code"], lost["case"]) == ("decided", case.id)
        assert "already" in lost["detail"]
        await track.ran_once(case, await caller)
    for browser in people:
        await browser.aclose()


async def test_of_a_quorum_the_second_completes_it_whoever_that_is(track: Track) -> None:
    await track.configure(rule=FOUR_EYES)
    track.turns.watch(track.app.trail, "case")
    track.attempts()
    for order in Orders():
        case, caller = await track.opened()
        told = await track.turns.race(
            order, rita=partial(track.vote, case, "rita"), rob=partial(track.vote, case, "rob")
        )
        won, lost = split(told)
        assert lost == []
        assert any(one.state is not State.PENDING for one in won)
        assert len(await track.app.approvals.votes(case.id)) == 2
        await track.ran_once(case, await caller)


async def test_one_person_twice_at_once_is_one_vote(track: Track) -> None:
    await track.configure(rule=FOUR_EYES)
    track.turns.watch(track.app.trail, "case")
    for order in Orders():
        case, caller = await track.opened()
        told = await track.turns.race(
            order, here=partial(track.vote, case, "rita"), there=partial(track.vote, case, "rita")
        )
        (won,), (lost,) = split(told)
        assert (won.state, lost.code) == (State.PENDING, "decided")
        assert "You have voted" in lost.message
        await track.vote(case, "rob", DENY)
        await track.never_ran(case, State.DENIED, "approval_denied", await caller)


# ------------------------------------------------------------ two retries


async def approve_what_comes(track: Track) -> Case:
    case = await track.waiting()
    await track.vote(case, "rita")
    return case


async def test_two_identical_calls_at_once_are_one_case_and_one_execution(track: Track) -> None:
    track.turns.watch(track.app.approvals, "_find")
    track.turns.watch(track.app.trail, "requested")
    for order in Orders():
        track.reference = f"T-{order.rounds}"
        decider = asyncio.create_task(approve_what_comes(track))
        told = await track.turns.race(order, one=track.pay, two=track.pay)
        await track.ran_once(await decider, told["one"], told["two"])


async def test_ten_identical_calls_at_once_are_one_case_and_one_execution(track: Track) -> None:
    track.reference = "ten"
    decider = asyncio.create_task(approve_what_comes(track))
    heard = await asyncio.gather(*(track.pay() for _ in range(10)))
    case = await decider
    await track.ran_once(case, *heard)
    again = await asyncio.gather(*(track.pay() for _ in range(10)))
    await track.ran_once(case, *heard, *again)
    assert all(one.replayed for one in again)


async def test_two_who_claim_what_was_approved_are_one_execution(track: Track) -> None:
    await track.configure(approvals=", execute_on: claim")
    for name in ("intent", "ended"):
        track.turns.watch(track.app.trail, name)
    track.attempts("attempt")
    for order in Orders():
        case = await track.left()
        told = await track.turns.race(order, one=track.pay, two=track.pay, vote=partial(track.vote, case, "rita"))
        await track.ran_once(case, told["one"], told["two"])


# ------------------------------------------------------------ a retry and the decision


@pytest.mark.parametrize("choice", [APPROVE, DENY])
async def test_a_retry_around_the_vote_hears_what_the_first_caller_hears(track: Track, choice: Choice) -> None:
    track.turns.watch(track.app.approvals, "_find")
    track.turns.watch(track.app.approvals, "case")
    track.turns.watch(track.app.trail, "case")
    track.attempts()
    for order in Orders():
        case, caller = await track.opened()
        told = await track.turns.race(order, retry=track.pay, vote=partial(track.vote, case, "rita", choice))
        heard = await caller
        if choice is APPROVE:
            await track.ran_once(case, heard, told["retry"])
        else:
            await track.never_ran(case, State.DENIED, "approval_denied", heard, told["retry"])


async def test_a_retry_around_the_execution_hears_what_the_first_caller_hears(track: Track) -> None:
    track.turns.watch(track.app.approvals, "_find")
    track.turns.watch(track.app.approvals, "ending")
    for name in ("intent", "ended"):
        track.turns.watch(track.app.trail, name)
    track.attempts("attempt")
    for order in Orders():
        case, caller = await track.opened()
        told = await track.turns.race(order, retry=track.pay, vote=partial(track.vote, case, "rita"))
        await track.ran_once(case, await caller, told["retry"])


# ------------------------------------------------------------ time


@pytest.mark.parametrize("choice", [APPROVE, DENY])
async def test_a_vote_as_the_time_runs_out_counts_or_is_late(track: Track, choice: Choice) -> None:
    track.turns.watch(track.app.approvals, "case")
    track.turns.watch(track.app.trail, "case")
    track.attempts()
    ends = set()
    for order in Orders():
        case, caller = await track.opened()
        told = await track.turns.race(order, clock=track.time_is_up, vote=partial(track.vote, case, "rita", choice))
        heard = await caller
        ends.add(heard.code)
        if isinstance(told["vote"], Refusal):
            assert told["vote"].code == "decided"
            assert "out of time" in told["vote"].message or "is expired already" in told["vote"].message
            assert await track.app.approvals.votes(case.id) == []
            await track.never_ran(case, State.EXPIRED, "approval_expired", heard)
        elif choice is DENY:
            await track.never_ran(case, State.DENIED, "approval_denied", heard)
        elif heard.code is None:
            await track.ran_once(case, heard)
        else:  # approved, but not begun in time either
            await track.never_ran(case, State.EXPIRED, "approval_expired", heard)
    assert ends == {"approval_expired", None if choice is APPROVE else "approval_denied"}


async def test_a_claim_as_the_time_runs_out_runs_once_or_not_at_all(track: Track) -> None:
    await track.configure(approvals=", execute_on: claim")
    track.turns.watch(track.app.approvals, "_find")
    for name in ("intent", "case"):
        track.turns.watch(track.app.trail, name)
    track.attempts("attempt")
    ends = set()
    for order in Orders():
        case = await track.left()
        await track.vote(case, "rita")
        told = await track.turns.race(order, clock=track.time_is_up, claim=track.pay)
        heard = told["claim"]
        ends.add(heard.code)
        if heard.code is None:
            await track.ran_once(case, heard)
        else:
            await track.never_ran(case, State.EXPIRED, "approval_expired", heard)
    assert ends == {None, "approval_expired"}


async def test_the_clock_never_takes_an_attempt_for_lost_that_is_under_way(track: Track) -> None:
    track.turns.watch(track.app.writer, "read")
    for name in ("intent", "ended"):
        track.turns.watch(track.app.trail, name)
    track.attempts("attempt")
    for order in itertools.islice(Orders(), 30):
        case, caller = await track.opened()
        await track.turns.race(order, clock=track.app.approvals.tick, vote=partial(track.vote, case, "rita"))
        await track.ran_once(case, await caller)


# ------------------------------------------------------------ the kill switch


async def test_a_suspension_around_the_execution_blocks_it_or_comes_too_late(track: Track) -> None:
    track.turns.watch(track.app.log, "append")
    track.turns.watch(track.app.governor._upstreams, "perform")
    track.attempts("attempt")
    ends = set()
    for order in Orders():
        case, caller = await track.opened()
        await track.turns.race(order, operator=track.suspend, vote=partial(track.vote, case, "rita"))
        heard = await caller
        await track.ended(case)
        ends.add(heard.code)
        if track.rows():
            await track.ran_once(case, heard)
        else:
            await track.never_ran(case, State.INVALIDATED, "agent_suspended", heard)
        await track.resume()
    assert ends == {None, "agent_suspended"}


# ------------------------------------------------------------ other hands on the case


async def test_an_agent_that_takes_it_back_around_the_vote_is_in_time_or_too_late(track: Track) -> None:
    for name in ("case", "intent"):
        track.turns.watch(track.app.trail, name)
    track.attempts("attempt")
    ends = set()
    for order in Orders():
        case, caller = await track.opened()
        told = await track.turns.race(
            order,
            agent=partial(track.app.approvals.cancel, case.id, by="reader", why="Never mind.", person=False),
            vote=partial(track.vote, case, "rita"),
        )
        heard = await caller
        ends.add(heard.code)
        if isinstance(told["agent"], Refusal):
            assert told["agent"].code == "decided"
            await track.ran_once(case, heard)
        else:
            assert "Never mind." in heard.text
            await track.never_ran(case, State.CANCELLED, "approval_denied", heard)
    assert ends == {None, "approval_denied"}


async def test_a_deny_rule_around_the_vote_stops_it_or_comes_too_late(track: Track) -> None:
    for name in ("case", "intent"):
        track.turns.watch(track.app.trail, name)
    track.turns.watch(track.app.governor._upstreams, "perform")
    track.attempts("attempt")
    ends = set()
    for order in Orders():
        case, caller = await track.opened()
        await track.turns.race(
            order,
            author=partial(track.turns.at_once, partial(track.configure, rule=FROZEN)),
            vote=partial(track.vote, case, "rita"),
        )
        heard = await caller
        ends.add(heard.code)
        if heard.code is None:
            await track.ran_once(case, heard)
        else:
            assert "Payments are frozen." in heard.text
            await track.never_ran(case, State.INVALIDATED, "denied_by_policy", heard)
        await track.configure()
    assert ends == {None, "denied_by_policy"}


async def test_of_two_who_reconcile_one_is_believed(track: Track) -> None:
    track.turns.watch(track.app.trail, "case")
    reconcile = track.app.approvals.reconcile
    for order in Orders():
        case, caller = await unknown(track)
        assert (await caller).code == "outcome_unknown"
        told = await track.turns.race(
            order,
            rita=partial(reconcile, case.id, "rita", outcome="succeeded", note="Seen in the ledger."),
            rob=partial(reconcile, case.id, "rob", outcome="failed", note="Not in the ledger."),
        )
        (won,), (lost,) = split(told)
        assert lost.code == "decided"
        assert f"is {won.state}" in lost.message
        if won.state is State.SUCCEEDED:  # what was not done may be asked for again
            heard = await track.pay()
            assert (heard.code, won.why in heard.text) == ("decided", True)
        assert len(await track.app.approvals.attempts(case.id)) == 1
        await track.only(case)


async def unknown(track: Track) -> tuple[Case, asyncio.Task[Heard]]:
    """A case whose attempt was ended while its tool was at work."""
    at_work = asyncio.Event()
    upstreams = track.app.governor._upstreams
    perform = upstreams.perform

    async def performing(*args: Any, **options: Any) -> Any:
        at_work.set()
        await asyncio.sleep(3600)
        return await perform(*args, **options)

    upstreams.perform = performing  # type: ignore[method-assign]
    try:
        case, caller = await track.opened()
        await track.vote(case, "rita")
        await at_work.wait()
        track.app.governor.attempting._attempts[case.id].cancel()
        assert (await track.ended(case)).state is State.UNKNOWN
    finally:
        upstreams.perform = perform  # type: ignore[method-assign]
    return case, caller
