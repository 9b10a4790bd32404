"""The engine behind the decision: an interface, and Rego in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from gateway.actions import Decision
from gateway.documents import Problem
from gateway.policy.answer import FAILED, POLICY_ERROR, BadAnswer, policy_error, read_answer
from gateway.policy.bundle import bundle
from gateway.policy.known import Known
from gateway.policy.memo import Memo, Path, paths_read
from gateway.policy.reading import Unreadable, read_document
from gateway.policy.rego import Machine, RegoFault

ENTRY_POINT = "data.gateway.decision"

_SETS = {
    effect: (f"data.gateway.{effect}", f"data.gateway.otherwise_{effect}") for effect in ("deny", "escalate", "allow")
}


class PolicyEngine(Protocol):
    """Whoever decides. `revision` names the policies and data in force: SHA-256, hex."""

    @property
    def revision(self) -> str: ...

    async def decide(self, document: bytes) -> Decision:
        """Decide on an input document (version 1, JSON). Never raises for a fault of a policy: that is a deny.

        Raises Refusal `policy_unavailable` where the engine cannot be asked now.
        """
        ...


class Explanation(msgspec.Struct, frozen=True):
    """A decision with what led to it. `matched`: by effect, the entries of every rule that fired, also those that a
    stronger effect overruled. `lines`: by file, the lines that were reached. `fault`: what broke, for the author."""

    decision: Decision
    matched: dict[str, list[dict[str, Any]]]
    lines: dict[str, list[int]]
    fault: str | None = None


class EmbeddedEngine:
    """Rego evaluated inline, on the thread that made the engine (the event loop's), in tens of microseconds.

    There is no time limit inside an evaluation: that is why the dialect is narrow and documents are bounded.
    """

    def __init__(
        self,
        modules: Mapping[str, str],
        data_json: str,
        revision: str,
        *,
        on_fault: Callable[[str], None] | None = None,
        unknown_names: Callable[[Known], list[Problem]] = lambda _: [],
    ) -> None:
        """Raises RegoFault if a module does not parse or the data do not fit. `on_fault` is told each fault's
        text, for the log: it may quote a value of the input, so an agent is not shown it. `unknown_names` tells which
        names in rules and grants do not exist."""
        self.revision = revision
        self.faults = 0  # decisions that a fault turned into a deny
        self.on_fault = on_fault
        self.unknown_names = unknown_names
        self.modules = dict(modules)
        self.data_json = data_json
        self._machine = Machine(modules, data_json)
        # The parts of the input that decisions depend on; None: on all of it.
        self.paths: tuple[Path, ...] | None = paths_read(modules.items())
        self._memo = None if self.paths is None else Memo(self.paths)
        self._explainer: Machine | None = None

    async def decide(self, document: bytes) -> Decision:
        """See `PolicyEngine.decide`. Does not wait for anything."""
        return self.decide_now(document)

    def decide_now(self, document: bytes) -> Decision:
        """As `decide`, for callers outside a coroutine."""
        try:
            whole = read_document(document)
        except Unreadable as fault:
            return self._failed(fault.reason, fault.detail, document)
        key = None if self._memo is None else self._memo.key(whole)
        if self._memo is not None and key is not None:
            known = self._memo.recall(key, document)
            if known is not None:
                return known
        try:
            value = self._machine.ask_json(ENTRY_POINT, document.decode())
            decision = read_answer(value, self.revision, document)
            if self._memo is not None and key is not None:
                self._memo.remember(key, decision)
            return decision
        except RegoFault as fault:
            note = f"The policy failed{f' at {fault.place}' if fault.place else ''}; the log has the fault."
            return self._failed(FAILED, f"{fault.place} {fault.message}".strip(), document, note=note)
        except BadAnswer as bad:
            return self._failed(bad.reason, bad.note, document, note=bad.note, rules=bad.rules)

    def _failed(
        self, reason: str, detail: str, document: bytes, *, note: str = "", rules: tuple[str, ...] = (POLICY_ERROR,)
    ) -> Decision:
        self.faults += 1
        if self.on_fault is not None:
            self.on_fault(detail)
        return policy_error(reason, self.revision, document, note=note, rules=rules)

    def probe(self, rule: str, document: bytes) -> None:
        """Evaluate one rule, so that what only shows when it runs does. Raises RegoFault."""
        self._machine.ask_list(rule, document.decode())

    def explain(self, document: bytes) -> Explanation:
        """The decision with every rule that fired. Slower than `decide` (a machine of its own, with coverage)."""
        faults: list[str] = []
        watched, self.on_fault, before = self.on_fault, faults.append, self.faults
        try:
            decision = self.decide_now(document)
        finally:
            self.on_fault, self.faults = watched, before
        if self._explainer is None:
            self._explainer = Machine(self.modules, self.data_json, coverage=True)
        explainer, matched = self._explainer, dict[str, list[dict[str, Any]]]()
        explainer.forget_coverage()
        text = document.decode(errors="replace")
        for effect, rules in _SETS.items():
            entries = [entry for rule in rules for entry in self._entries(explainer, rule, text)]
            matched[effect] = sorted(entries, key=lambda entry: str(entry.get("rule")))
        return Explanation(decision, matched, explainer.covered(), "; ".join(faults) or None)

    def bundle(self) -> bytes:
        """The policies and data in force as a bundle for OPA servers."""
        return bundle(self.modules, self.data_json, self.revision)

    @staticmethod
    def _entries(machine: Machine, rule: str, document: str) -> list[dict[str, Any]]:
        try:
            return [entry for entry in machine.ask_list(rule, document) if isinstance(entry, dict)]
        except RegoFault:
            return []  # not every policy has these sets; what failed in them is told by the decision's fault
