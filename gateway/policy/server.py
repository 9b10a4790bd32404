"""The engine that asks an OPA server. Imported only where one is configured.

The folder of policies is still read, linted and parsed here: the engine in force knows which revision the server
should decide by and which parts of the input decisions depend on. Fails closed: where the server does not answer, or
decides by policies that are not ours, that is a `policy_unavailable` and never a deny, which would be policy's word.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from gateway.actions import Decision, Effect
from gateway.clock import Clock
from gateway.config import OpaServer
from gateway.errors import Refusal
from gateway.obligations import UNREADABLE_RULE
from gateway.policy.answer import FAILED, NO_DECISION, POLICY_ERROR, BadAnswer, policy_error, read_answer
from gateway.policy.circuit import Circuit
from gateway.policy.engine import ENTRY_POINT, EmbeddedEngine
from gateway.policy.loading import samples
from gateway.policy.memo import Memo
from gateway.policy.opa import Answered, Failed, OpaClient, Unanswered
from gateway.policy.reading import Unreadable, read_document
from gateway.policy.rollout import Rollout, WasInForce

LOOK_EVERY_S = 1.0
CONFIRMED_S = 2.0  # what is remembered counts this long after the server last decided by the revision in force here


class ServerEngine:
    """One for the life of the process; `follow` tells it of new policies. Belongs to the event loop's thread."""

    def __init__(
        self,
        url: str,
        own: EmbeddedEngine,
        settings: OpaServer,
        *,
        clock: Clock,
        was_in_force: WasInForce,
        on_fault: Callable[[str], None] | None = None,
        on_change: Callable[[str | None], None] | None = None,
    ) -> None:
        """Opens nothing yet. `was_in_force` is asked about revisions other than the one in force here (see `rollout`).

        `on_fault` is told each fault of a policy, `on_change` each new answer of `fault`. Raises Refusal
        `invalid_configuration` for a `url` that is no server's address.
        """
        self.faults = 0  # decisions that a fault of the policy turned into a deny
        self.on_fault = on_fault
        self.server_revision: str | None = None  # what the server decided by when it last answered
        self._client = OpaClient(url)
        self._clock = clock
        self._own = own
        self._settings = settings
        self._memo = _memo_of(own)
        self._circuit = Circuit()
        self._rollout = Rollout(own.revision, was_in_force, clock)
        self._confirmed_s = float("-inf")
        self._heard_s = float("-inf")
        self._objection: str | None = None
        self._silence: str | None = "It has not answered yet."
        self._on_change = on_change
        self._told: str | None = self.fault()
        self._sample = next(samples())

    @property
    def revision(self) -> str:
        """Of the policies in force here, which the server should decide by."""
        return self._own.revision

    def follow(self, own: EmbeddedEngine, settings: OpaServer) -> None:
        """Other policies or settings are in force here now."""
        if own.revision != self._own.revision:
            self._memo, self._confirmed_s = _memo_of(own), float("-inf")
            self._rollout.follow(own.revision)
        self._own, self._settings = own, settings

    async def decide(self, document: bytes) -> Decision:
        """See `PolicyEngine.decide`. `revision` is the server's; `decision_id` names it in the server's log."""
        try:
            whole = read_document(document)
        except Unreadable as fault:
            return self._failed(BadAnswer(fault.reason, ""), document, fault=fault.detail)
        memo, own = self._memo, self._own.revision
        key = None if memo is None else memo.key(whole)
        if memo is not None and key is not None and self._clock.monotonic_s() - self._confirmed_s <= CONFIRMED_S:
            known = memo.recall(key, document)
            if known is not None:
                return known
        wait_s = self._circuit.wait_s(self._clock.monotonic_s())
        if wait_s > 0:
            raise _unavailable()
        said = await self._ask(document)
        decision = self._decision(said, document)
        if said.revision == self._own.revision and decision.effect is not Effect.DENY and self._settings.cross_check:
            decision = self._agreed(decision, document)
        # What was decided by other policies, or failed, is asked again.
        if memo is not None and key is not None and said.revision == own:
            memo.remember(key, decision)
        return decision

    async def _ask(self, document: bytes) -> Answered | Failed:
        """Put the question. Raises Refusal `policy_unavailable` where the answer is none that counts."""
        try:
            token = self._settings.token
            said = await self._client.decide(
                document, timeout_s=self._settings.timeout_s, token=None if token is None else token.resolve()
            )
        except (Unanswered, ValueError) as silence:
            self._circuit.failed(self._clock.monotonic_s())
            self._confirmed_s, self._silence = float("-inf"), str(silence)
            self._tell()
            raise _unavailable() from None
        self._circuit.succeeded()
        self._silence, self._heard_s = None, self._clock.monotonic_s()
        if isinstance(said, Answered):
            self.server_revision = said.revision
            self._objection = await self._rollout.objection(said.revision, self._settings.rollout_s)
            agreed = said.revision == self._own.revision
            self._confirmed_s = self._heard_s if agreed else float("-inf")
        elif self.server_revision is None:
            # A failure does not say which policies failed, so it counts once the server has said what it decides by.
            self._objection = "The OPA server has not said yet by which revision it decides."
        self._tell()
        if self._objection is not None:
            raise _unavailable()
        return said

    def _decision(self, said: Answered | Failed, document: bytes) -> Decision:
        if isinstance(said, Failed):
            note = f"The policy failed{f' at {said.place}' if said.place else ''}; the log has the fault."
            return self._failed(BadAnswer(FAILED, note), document, fault=f"{said.place} {said.message}".strip())
        if said.result is None:
            return self._failed(BadAnswer(NO_DECISION, f"{ENTRY_POINT} is undefined."), document, said.decision_id)
        try:
            return read_answer(said.result, said.revision, document, said.decision_id)
        except BadAnswer as bad:
            return self._failed(bad, document, said.decision_id)

    def _agreed(self, decision: Decision, document: bytes) -> Decision:
        """The decision, if the engine in this process comes to the same effect; else a deny.

        OPA forgives a few faults that are faults here, such as iterating over a number or a rule that its index has
        ruled out; a deny rule that fails must not be one that does not fire.
        """
        here = self._own.decide_now(document)
        if here.effect is decision.effect:
            return decision
        if here.rules == (POLICY_ERROR,) or UNREADABLE_RULE in here.rules:
            self.faults += 1
            return msgspec.structs.replace(here, decision_id=decision.decision_id)
        note = (
            f"OPA says {decision.effect} ({', '.join(decision.rules)}), the engine in the process {here.effect}"
            f" ({', '.join(here.rules)}); decision {decision.decision_id or 'without an id'}."
        )
        reason = "The two policy engines disagree about this, so nothing is allowed. Tell the operator of the gateway."
        return self._failed(BadAnswer(reason, note), document, decision.decision_id)

    def _failed(self, bad: BadAnswer, document: bytes, decision_id: str = "", *, fault: str = "") -> Decision:
        """The deny for an answer that cannot be followed. `fault` is what the log is told where that is more."""
        self.faults += 1
        if self.on_fault is not None:
            self.on_fault(fault or bad.note)
        revision = self.server_revision or self.revision
        return policy_error(bad.reason, revision, document, note=bad.note, rules=bad.rules, decision_id=decision_id)

    # ------------------------------------------------------------ how the server is

    def fault(self) -> str | None:
        """Why no decision can be had now, in a sentence for operators; None if they can."""
        if self._silence is not None and (self._circuit.is_open or self._heard_s == float("-inf")):
            return f"The OPA server at {self._client.address} decides nothing. {self._silence}"
        return self._objection

    def difference(self) -> str | None:
        """How the server's policies differ from those in force here, while such decisions still count."""
        other = self._rollout.differing
        if other is None or self.fault() is not None:
            return None
        return (
            f"The OPA server still decides by the revision {other[:12]}; {self.revision[:12]} is in force here, and"
            f" decisions by another count for {self._settings.rollout_s:g} s."
        )

    async def look(self) -> None:
        """Ask about a sample, so that what `fault` says is true although nobody asks for decisions."""
        with contextlib.suppress(Refusal):
            await self._ask(self._sample)

    async def watch(self) -> None:
        """Look once a second, unless decisions tell anyway. Runs until cancelled."""
        while True:
            if self._clock.monotonic_s() - self._heard_s >= LOOK_EVERY_S:
                await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def _tell(self) -> None:
        now = self.fault()
        if now != self._told:
            self._told = now
            if self._on_change is not None:
                self._on_change(now)

    async def aclose(self) -> None:
        """Close the connections; what is being asked fails."""
        await self._client.aclose()


def _memo_of(own: EmbeddedEngine) -> Memo | None:
    return None if own.paths is None else Memo(own.paths)


def _unavailable() -> Refusal:
    return Refusal(
        "policy_unavailable",
        "The policy server does not answer as it should, so nothing is allowed; ask again in a moment.",
        retry_after_s=1,
    )
