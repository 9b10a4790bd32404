"""The person of the story: the local operator at a terminal, or whoever sits at the console."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from gateway.quickstart.demo.stage import Stage
from gateway.quickstart.demo.told import NotAsTold, say

CLI = "gateway CLI"
FIND_S = 30.0
BY_HAND_S = 1_800.0
PAUSE_S = 0.2
WAITS = frozenset({"pending"})


class Person(NamedTuple):
    """Decides the cases of the story. `by_hand`: a human does, in the console, and this only waits for it."""

    stage: Stage
    by_hand: bool

    @property
    def client(self) -> str:
        return "console" if self.by_hand else CLI

    def find(self, reference: str) -> dict[str, Any]:
        """The case that waits for the transfer with this reference."""
        deadline_s = time.monotonic() + FIND_S
        while time.monotonic() < deadline_s:
            for listed in self.stage.gateway("approvals", "list", "--status", "pending", "--limit", "1000"):
                case: dict[str, Any] = self.stage.gateway("approvals", "show", listed["id"])
                if case["arguments"].get("reference") == reference:
                    return case
            time.sleep(PAUSE_S)
        raise NotAsTold(f"No case waits for the transfer {reference}: see `gateway approvals list`.")

    def approve(self, case: dict[str, Any]) -> dict[str, Any]:
        """The case once it is approved."""
        if self.by_hand:
            return self._watch(case, "approve it")
        return self._decide("approve", case, "--reason", "The demo's payment to a listed supplier.")

    def deny(self, case: dict[str, Any], guidance: str) -> dict[str, Any]:
        """The case once it is denied; the agent is told `guidance`."""
        if self.by_hand:
            return self._watch(case, f"deny it with a guidance such as: {guidance}")
        return self._decide("deny", case, "--guidance", guidance)

    def _decide(self, choice: str, case: dict[str, Any], *more: str) -> dict[str, Any]:
        # The digest says what was looked at: the vote counts for exactly that.
        seen = ("--digest", case["presented_digest"])
        decided: dict[str, Any] = self.stage.gateway("approvals", choice, case["id"], *seen, *more)
        return decided

    def _watch(self, case: dict[str, Any], wanted: str) -> dict[str, Any]:
        link = self.stage.gateway("login", "--next", f"/console/approvals/{case['id']}")["url"]
        say(f"   your turn: open {link}")
        say(f"   sign in, which leads to the case, and {wanted}. Waiting ...")
        deadline_s = time.monotonic() + BY_HAND_S
        while time.monotonic() < deadline_s:
            now: dict[str, Any] = self.stage.gateway("approvals", "show", case["id"])
            if now["state"] not in WAITS:
                return now
            time.sleep(5 * PAUSE_S)
        raise NotAsTold(f"Nobody decided the case {case['id']} within {BY_HAND_S / 60:g} minutes.")
