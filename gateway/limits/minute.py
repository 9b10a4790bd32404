"""A sliding minute: at most so many in any 60 seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

SPAN_S = 60


class SlidingMinute:
    """Amounts of the last minute in one bucket per second.

    A token bucket with a minute's burst would let nearly twice the limit pass within a minute; this does not.
    A bucket counts until 60 whole seconds after its last moment, so no 60-second span ever holds more than the
    limit, and memory is 61 small lists whatever the rate. A bucket is `[second, amount, held]`: `held` is the part of
    the amount that is only reserved, and `second` becomes -1 when it has left the minute, so that a late correction
    knows that it comes too late to matter.
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
        bucket = [now_s, amount, 0]
        buckets.append(bucket)
        return bucket

    def hold(self, now_s: int, amount: int) -> list[int]:
        """Count an amount that is only reserved; returns its bucket for `settle`. As `take` otherwise."""
        bucket = self.take(now_s, amount)
        bucket[2] += amount
        return bucket

    def settle(self, bucket: list[int], held: int, difference: int) -> None:
        """What was held in that bucket was used, but for a (negative) difference."""
        bucket[2] -= held
        self.correct(bucket, difference)

    def correct(self, bucket: list[int], difference: int) -> None:
        """Add a (negative) difference to what was counted in that bucket, if it still counts."""
        if bucket[0] >= 0:
            bucket[1] += difference
            self.total += difference

    def buckets(self) -> list[tuple[int, int]]:
        """(second, amount) of all that counts."""
        return [(second, amount) for second, amount, _ in self._buckets]

    def held(self) -> dict[int, int]:
        """By second, what is only reserved of all that counts."""
        return {second: held for second, _, held in self._buckets if held}

    def wait_s(self, now_s: int, amount: int, limit: int) -> int:
        """See `wait_s`."""
        excess = self.used(now_s) + amount - limit
        return wait_s(self.buckets(), self.held(), excess, now_s)

    def reset_s(self, now_s: int) -> int:
        """Whole seconds until nothing counts any more."""
        if not self.used(now_s):
            return 0
        return self._buckets[-1][0] + SPAN_S + 1 - now_s


def wait_s(buckets: Iterable[tuple[int, int]], held: Mapping[int, int], excess: int, now_s: int) -> int:
    """Whole seconds, at least 1, until as much as `excess` no longer counts, if nothing else comes in.

    What is only reserved (`held`, by second) is given back when its call ends, which nobody can foretell: it counts as
    given back, so that where nothing else is in the way a caller may try again at once. `buckets` are (second, amount),
    oldest first. Where not even an empty minute has room it is the time until the minute is empty.
    """
    excess -= sum(held.values())
    wait = 1
    for second, amount in buckets:
        if excess <= 0:
            break
        used = amount - held.get(second, 0)
        if used > 0:
            excess -= used
            wait = second + SPAN_S + 1 - now_s
    return max(1, wait)
