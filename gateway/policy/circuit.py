"""Whether a server that failed is asked again yet: after several failures at once or in a row nobody waits for it.

Open, it fails every question at once, except that one a moment goes through to see whether the server is back.
"""

from __future__ import annotations

FAILURES = 5  # in a row, until it opens
PAUSE_S = 1.0  # from one trial to the next


class Circuit:
    """Counts failures. Times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._failures = 0
        self._again_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the server is taken to be away."""
        return self._failures >= FAILURES

    def wait_s(self, now_s: float) -> float:
        """0 if the server may be asked now; else the seconds until the next trial. A 0 while it is open is the trial:
        the next question has to wait again, however the trial ends."""
        if not self.is_open:
            return 0.0
        if now_s < self._again_s:
            return self._again_s - now_s
        self._again_s = now_s + PAUSE_S
        return 0.0

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0

    def failed(self, now_s: float) -> None:
        """It did not answer, or not with an answer."""
        self._failures += 1
        self._again_s = now_s + PAUSE_S
