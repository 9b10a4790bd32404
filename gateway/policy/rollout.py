"""Whether a decision counts that a server made by other policies than those in force here.

A new revision does not arrive everywhere at once: replicas are restarted one by one, and servers fetch their bundle
every few seconds. So for a bounded time a decision by another revision counts, if that revision is one of ours: a
gateway of this installation has loaded it and put it in force. What nobody here ever put in force never counts, and
neither does one that servers still decide by when the time is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.clock import Clock

WasInForce = Callable[[str], Awaitable[bool]]
"""Whether a gateway of this installation has put this revision in force before (there is a `policy.activated`)."""

_NO_BUNDLE = "The OPA server decides without a bundle of ours; check its bundle configuration."


class Rollout:
    """Judges revisions against the one in force here."""

    def __init__(self, own: str, was_in_force: WasInForce, clock: Clock) -> None:
        self._own = own
        self._was_in_force = was_in_force
        self._clock = clock
        self._others: dict[str, float] = {}  # revision, ours but another: when it was first met
        self.differing: str | None = None  # the other revision that the last answer was made by

    def follow(self, own: str) -> None:
        """Another revision is in force here now, so every difference begins anew."""
        if own != self._own:
            self._own, self._others, self.differing = own, {}, None

    async def objection(self, revision: str, tolerated_s: float) -> str | None:
        """Why a decision by `revision` does not count, for operators; None if it does."""
        self.differing = None if revision == self._own else revision
        if revision == self._own:
            return None
        if not revision:
            return _NO_BUNDLE
        now_s = self._clock.monotonic_s()
        since_s = self._others.get(revision)
        if since_s is None:
            if not await self._was_in_force(revision):
                return (
                    f"The OPA server decides by the revision {revision[:12]}, which no gateway here has put in force;"
                    " check which bundle it fetches."
                )
            since_s = self._others.setdefault(revision, now_s)
        if now_s - since_s <= tolerated_s:
            return None
        return (
            f"The OPA server has decided by the revision {revision[:12]} for longer than {tolerated_s:g} s, and"
            f" {self._own[:12]} is in force here; check that it fetches its bundle."
        )
