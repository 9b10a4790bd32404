"""What one replica may use of a limit that all share: what it was granted, or took ahead of this minute."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.limits.minute import SPAN_S, SlidingMinute, wait_s


class Share:
    """The grant of one counter: the ceiling of `owner` is what this replica was granted, not what the limit is."""

    __slots__ = (
        "alone",
        "counter",
        "granted_name",
        "limit",
        "others",
        "owner",
        "refused_at",
        "refused_need",
        "used_name",
        "window",
    )

    def __init__(self, counter: str, window: str, owner: Any, used_name: str, granted_name: str) -> None:
        self.counter = counter
        self.window = window
        self.owner = owner  # an Account or a Spend
        self.used_name = used_name
        self.granted_name = granted_name
        self.limit = 0
        self.alone = False  # where replicas can't count together, each counts for itself
        self.others = 0  # what the others hold, when last told
        self.refused_at = -1
        self.refused_need = 0

    @property
    def used(self) -> int:
        """What this replica has booked and holds."""
        value: int = getattr(self.owner, self.used_name)
        return value

    @property
    def granted(self) -> int:
        """What this replica may use in all."""
        value: int = getattr(self.owner, self.granted_name)
        return value

    @granted.setter
    def granted(self, value: int) -> None:
        setattr(self.owner, self.granted_name, value)

    @property
    def left(self) -> int:
        """What is left of the limit for everybody, as far as this replica knows."""
        return max(0, self.limit - self.others - self.used)

    def lower(self, block: int) -> int:
        """Keep what is used, and not more than a block beside it; less where little is left. What is held now.

        More than the limit may be in use (a true cost above its bound, a limit that was lowered): that is a fact, and
        no grant.
        """
        used = self.used
        held = max(used, min(self.granted, used + min(block, self.left // 4)))
        self.granted = min(held, max(0, self.limit - self.others))
        return held


class RefusedMinute(NamedTuple):
    """What was refused a moment ago: the second, how much, and why: what the others may give back, and (second, taken
    by all) oldest first."""

    second: int
    need: int
    others_open: int = 0
    seconds: tuple[tuple[int, int], ...] = ()


NOT_REFUSED = RefusedMinute(-1, 0)


class SharedMinute:
    """Stands where `SlidingMinute` does, for a replica: it has only what it took ahead in this very second."""

    __slots__ = (
        "ahead",
        "alone",
        "back",
        "counter",
        "limit",
        "mine",
        "others",
        "others_s",
        "refused",
        "second",
    )

    def __init__(self, counter: str) -> None:
        self.counter = counter
        self.limit: int | None = None
        self.alone = False
        self.mine = SlidingMinute()  # what this replica has used
        self.ahead = 0  # taken ahead and not yet used
        self.second = 0  # in which it was taken
        self.back: dict[int, int] = {}  # by second, what the shared counters do not know; told while there is a limit
        self.others = 0  # what the others had taken, when last told
        self.others_s = 0
        self.refused = NOT_REFUSED

    def limited(self, limit: int | None, *, alone: bool) -> None:
        """The limit in force."""
        self.alone = alone
        self.refused = NOT_REFUSED
        self.give_back()
        self.limit = limit

    def owe(self, second: int, amount: int) -> None:
        """The shared counters are to be corrected by so much."""
        self.back[second] = self.back.get(second, 0) + amount
        if len(self.back) > 2 * SPAN_S:
            self.back = {at: owed for at, owed in self.back.items() if at >= second - SPAN_S}

    def used(self, now_s: int) -> int:
        """So much that what is left of the limit is what was taken ahead."""
        if self.limit is None:
            return self.mine.used(now_s)
        return self.limit - (self.ahead if self.second == now_s else 0)

    def take(self, now_s: int, amount: int) -> list[int]:
        """Use of what was taken ahead; the bucket for `correct`."""
        if self.limit is None:
            self.owe(now_s, amount)
        else:
            self.ahead -= min(amount, self.ahead)
        self.mine.used(now_s)
        return self.mine.take(now_s, amount)

    def hold(self, now_s: int, amount: int) -> list[int]:
        """As `take`, of what is only reserved; the bucket for `settle`."""
        bucket = self.take(now_s, amount)
        bucket[2] += amount
        self.refused = NOT_REFUSED
        return bucket

    def settle(self, bucket: list[int], held: int, difference: int) -> None:
        """What was held in that bucket was used, but for a (negative) difference."""
        bucket[2] -= held
        self.refused = NOT_REFUSED
        self.correct(bucket, difference)

    def correct(self, bucket: list[int], difference: int) -> None:
        """It was less or more after all."""
        if difference and bucket[0] >= 0:
            self.owe(bucket[0], difference)
            self.mine.correct(bucket, difference)

    def open(self, now_s: int) -> int:
        """What this replica has taken of the minute and may give back."""
        self.mine.used(now_s)
        return sum(self.mine.held().values()) + (self.ahead if self.second == now_s else 0)

    def wait_s(self, need: int, now_s: int) -> int:
        """When there is room for `need`, by what was `refused` in this second; see `minute.wait_s`."""
        assert self.limit is not None
        self.mine.used(now_s)
        _, _, others_open, seconds = self.refused
        excess = sum(amount for _, amount in seconds) + need - self.limit - others_open
        return wait_s(seconds, self.mine.held(), excess, now_s)

    def granted(self, now_s: int, amount: int, taken: int) -> None:
        """So much was taken ahead, and so much all had taken before it."""
        self.others, self.others_s = max(0, taken - self.mine.used(now_s) - self.ahead), now_s
        self.ahead += amount
        self.second = now_s

    def granted_alone(self, now_s: int, amount: int) -> None:
        """So much may be used though nobody was asked; it is told later."""
        self.give_back()
        self.owe(now_s, amount)
        self.ahead, self.second = amount, now_s

    def give_back(self) -> None:
        """What was taken ahead and not used goes back."""
        if self.ahead:
            self.owe(self.second, -self.ahead)
            self.ahead = 0

    def tell_all(self) -> None:
        """The shared counters know nothing of what this replica has used."""
        self.ahead = 0
        self.back = dict(self.mine.buckets())

    # ------------------------------------------------------------ telling

    def all_used(self, now_s: int) -> int:
        """What all replicas have used of this minute, as far as this one knows."""
        return self.mine.used(now_s) + (self.others if now_s - self.others_s <= SPAN_S else 0)

    def reset_s(self, now_s: int) -> int:
        """Whole seconds until nothing counts any more, as far as this replica knows."""
        if self.mine.used(now_s):
            return self.mine.reset_s(now_s)
        return max(0, self.others_s + SPAN_S + 1 - now_s) if self.all_used(now_s) else 0
