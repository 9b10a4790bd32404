"""What one replica may use of an account that all share: its grants, and what it took ahead of this minute."""

from __future__ import annotations

from gateway.limits.minute import SPAN_S

AHEAD_S = 1
"""What was taken ahead by the minute is good until the second after; then it is given back."""


class SharedMinute:
    """Stands where `SlidingMinute` does, for a replica: it has only what it took ahead from the shared counters."""

    __slots__ = ("_limit", "ahead", "back", "second", "shared", "shared_s")

    def __init__(self) -> None:
        self._limit = 0
        self.ahead = 0  # taken ahead and not yet used
        self.second = 0  # in which it was taken
        self.back: list[tuple[int, int]] = []  # (second, amount) to correct in the shared counters
        self.shared = 0  # what all had taken, when last told
        self.shared_s = 0

    def limited(self, limit: int) -> None:
        """The limit in force, so that `used` can say what is left."""
        self._limit = limit

    def used(self, now_s: int) -> int:
        """So much that what is left of the limit is what was taken ahead."""
        if self.ahead and now_s - self.second > AHEAD_S:
            self.give_back()
        return self._limit - self.ahead

    def take(self, now_s: int, amount: int) -> list[int]:
        """Use of what was taken ahead; the bucket for `correct`."""
        self.ahead -= min(amount, self.ahead)
        return [self.second, amount]

    def correct(self, bucket: list[int], difference: int) -> None:
        """It was less or more after all."""
        if difference:
            self.back.append((bucket[0], difference))

    def granted(self, now_s: int, amount: int, shared: int) -> None:
        """So much was taken ahead, and so much all have taken before it."""
        if self.ahead and self.second != now_s:
            self.give_back()
        self.ahead += amount
        self.second = now_s
        self.shared, self.shared_s = shared + amount, now_s

    def give_back(self) -> None:
        """What was taken ahead and not used goes back."""
        if self.ahead:
            self.back.append((self.second, -self.ahead))
            self.ahead = 0

    # ------------------------------------------------------------ telling

    def total_used(self, now_s: int) -> int:
        """What all replicas have used of this minute, as far as this one knows."""
        return max(0, self.shared - self.ahead) if now_s - self.shared_s <= SPAN_S else 0

    def wait_s(self, now_s: int, amount: int, limit: int) -> int:
        """At least a second; who refused knows better."""
        return 1

    def reset_s(self, now_s: int) -> int:
        """Whole seconds until nothing counts any more, as far as this replica knows."""
        return max(0, self.shared_s + SPAN_S + 1 - now_s) if self.total_used(now_s) else 0
