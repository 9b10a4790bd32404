"""Which identities may meet a case, and how many cases wait: in memory, so that most calls ask no database.

Saying yes too often costs a look; saying no wrongly would let an action pass its case, so an identity is entered
before its case is written, and each case has an entry of its own: news of an old one never hides a newer one.
"""

from __future__ import annotations

from gateway.approvals.case import OPEN, State

FOREVER = 2**63


class Known:
    """Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._until_ns: dict[str, dict[str, int]] = {}  # digest or idempotency -> case -> until when it is met
        self._pending: set[str] = set()
        self._unknown: set[str] = set()

    def expect(self, case_id: str, keys: tuple[str | None, ...]) -> None:
        """A case is about to be written."""
        self._enter(case_id, keys, FOREVER)

    def tell(self, case_id: str, keys: tuple[str | None, ...], state: State, told_until_ns: int | None) -> None:
        """Where a case stands now."""
        self._enter(case_id, keys, FOREVER if state in OPEN else told_until_ns or 0)
        for ids, counted in ((self._pending, State.PENDING), (self._unknown, State.UNKNOWN)):
            (ids.add if state is counted else ids.discard)(case_id)

    def forget(self, case_id: str, keys: tuple[str | None, ...]) -> None:
        """A case that was expected certainly is not there."""
        for key in keys:
            cases = self._until_ns.get(key) if key is not None else None
            if cases is not None:
                cases.pop(case_id, None)
                if not cases:
                    del self._until_ns[key or ""]

    def met(self, key: str | None, now_ns: int) -> bool:
        """Whether an identity may meet a case now."""
        cases = self._until_ns.get(key) if key is not None else None
        return cases is not None and any(until_ns > now_ns for until_ns in cases.values())

    def forget_old(self, now_ns: int) -> None:
        """Drop what nobody can meet any more."""
        for key in [key for key, cases in self._until_ns.items() if min(cases.values()) <= now_ns]:
            left = {case_id: until_ns for case_id, until_ns in self._until_ns[key].items() if until_ns > now_ns}
            if left:
                self._until_ns[key] = left
            else:
                del self._until_ns[key]

    @property
    def pending(self) -> int:
        """Cases that wait for people."""
        return len(self._pending)

    @property
    def unknown(self) -> int:
        """Cases whose outcome a person must find out."""
        return len(self._unknown)

    def _enter(self, case_id: str, keys: tuple[str | None, ...], until_ns: int) -> None:
        for key in keys:
            if key is not None:
                self._until_ns.setdefault(key, {})[case_id] = until_ns
