"""A sliding minute: at most so many in any 60 seconds."""

from __future__ import annotations

from collections import deque

SPAN_S = 60


class SlidingMinute:
    """Amounts of the last minute in one bucket per second.

    A token bucket with a minute's burst would let nearly twice the limit pass within a minute; this does not.
    A bucket counts until 60 whole seconds after its last moment, so no 60-second span ever holds more than the
    limit, and memory is 61 small lists whatever the rate. A bucket is `[second, amount]`; `second` becomes
    -1 when it has left the minute, so that a late correction knows that it comes too late to matter.
    """

    __slots__ = ("_buckets", "total")

    def __init__(self) -> None:
        self.total = 0
        self._buckets: deque[list[int]] = deque()

    def used(self, now_s: int) -> int:
        """What counts at this second of the monotonic clock."""
        buckets = self._buckets
        gone = now_s - SPAN_S
        while buckets and buckets[0][0] < gone:
            bucket = buckets.popleft()
            self.total -= bucket[1]
            bucket[0] = -1
        return self.total

    def take(self, now_s: int, amount: int) -> list[int]:
        """Count an amount; returns its bucket for `correct`. Call `used` with the same second first."""
        buckets = self._buckets
        self.total += amount
        if buckets:
            last = buckets[-1]
            if last[0] == now_s:
                last[1] += amount
                return last
        bucket = [now_s, amount]
        buckets.append(bucket)
        return bucket

    def correct(self, bucket: list[int], difference: int) -> None:
        """Add a (negative) difference to what was counted in that bucket, if it still counts."""
        if bucket[0] >= 0:
            bucket[1] += difference
            self.total += difference

    def buckets(self) -> list[tuple[int, int]]:
        """(second, amount) of all that counts."""
        return [(second, amount) for second, amount in self._buckets]

    def wait_s(self, now_s: int, amount: int, limit: int) -> int:
        """Whole seconds, at least 1, until `amount` fits under `limit` if nothing else comes in.

        Only meaningful where `amount <= limit`; otherwise it is the time until the minute is empty.
        """
        excess = self.used(now_s) + amount - limit
        wait = 1
        for second, held in self._buckets:
            if excess <= 0:
                break
            excess -= held
            wait = second + SPAN_S + 1 - now_s
        return max(1, wait)

    def reset_s(self, now_s: int) -> int:
        """Whole seconds until nothing counts any more."""
        if not self.used(now_s):
            return 0
        return self._buckets[-1][0] + SPAN_S + 1 - now_s
