"""The counters of one level: what it has in use, this minute, today and this month."""

from __future__ import annotations

from typing import Any

from gateway.limits.allowance import Allowance
from gateway.limits.minute import SlidingMinute
from gateway.limits.windows import WINDOWS, Window, Windows

NO_CEILING = 1 << 80
"""Stands for "not limited", so that the hot path compares integers and nothing else."""


class Spend:
    """Used in one window of one level: booked and held together, and what was booked for itself."""

    __slots__ = (
        "booked_nanousd",
        "booked_tokens",
        "is_told",
        "kind",
        "max_nanousd",
        "max_tokens",
        "nanousd",
        "soft_nanousd",
        "soft_tokens",
        "tokens",
        "window",
    )

    def __init__(self, kind: Window, window: str) -> None:
        self.kind = kind
        self.window = window
        self.nanousd = 0
        self.tokens = 0
        self.booked_nanousd = 0
        self.booked_tokens = 0
        self.max_nanousd = NO_CEILING
        self.max_tokens = NO_CEILING
        self.soft_nanousd = NO_CEILING
        self.soft_tokens = NO_CEILING
        self.is_told = False  # that the soft budget was passed

    def begin_with(self, nanousd: int, tokens: int) -> None:
        """Take over what was spent before; what had passed a soft budget by then was told then."""
        self.nanousd = self.booked_nanousd = nanousd
        self.tokens = self.booked_tokens = tokens
        self.is_told = self.has_passed

    @property
    def has_passed(self) -> bool:
        """Whether more was booked than a soft budget has."""
        return self.booked_nanousd > self.soft_nanousd or self.booked_tokens > self.soft_tokens

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held or booked."""
        return not (self.nanousd or self.tokens or self.booked_nanousd or self.booked_tokens)


class Account:
    """One level of one tenant. Only its limiter touches it, from one thread."""

    __slots__ = (
        "allowance",
        "concurrency",
        "in_flight",
        "is_limited",
        "level",
        "minute_requests",
        "minute_tokens",
        "money_is_limited",
        "refused",
        "requests",
        "spends",
        "tenant",
        "tokens",
        "windows",
    )

    def __init__(self, tenant: str, level: str, allowance: Allowance, windows: Windows) -> None:
        self.tenant = tenant
        self.level = level
        self.in_flight = 0
        self.windows = windows
        self.spends: tuple[Spend, ...] = ()
        """One for each window that is counted; made anew when one ends. A reservation keeps those it was taken from."""
        self._begin()
        self.allow(allowance)

    def _begin(self) -> None:
        self.refused = SlidingMinute()
        self.requests = SlidingMinute()
        self.tokens = SlidingMinute()

    def allow(self, allowance: Allowance) -> None:
        """Put an allowance in force; what is used stays used."""
        self.allowance = allowance
        self.is_limited = allowance.limits_anything
        self.concurrency = _ceiling(allowance.concurrency)
        self.minute_requests = _ceiling(allowance.requests_per_minute)
        self.minute_tokens = _ceiling(allowance.tokens_per_minute)
        had = {spend.kind: spend for spend in self.spends}
        counted = {rule.window for rule in allowance.budgets}
        if self.level.startswith(("agent:", "user:")):  # their days and months are told on disk in any case
            counted |= {"day", "month"}
        self.spends = tuple(had.get(kind) or self._spend(kind) for kind in WINDOWS if kind in counted)
        for spend in self.spends:
            self._bound(spend)
        self.money_is_limited = any(rule.nanousd is not None and rule.hard for rule in allowance.budgets)

    def turn(self, windows: Windows) -> None:
        """Begin new windows; those that go on go on."""
        self.windows = windows
        kept = []
        for spend in self.spends:
            if spend.window != windows.name(spend.kind):
                spend = self._spend(spend.kind)
                self._bound(spend)
            kept.append(spend)
        self.spends = tuple(kept)

    def _spend(self, kind: Window) -> Spend:
        return Spend(kind, self.windows.name(kind))

    def _bound(self, spend: Spend) -> None:
        nanousd, tokens = self.allowance.ceiling(spend.kind)
        spend.max_nanousd, spend.max_tokens = _ceiling(nanousd), _ceiling(tokens)
        nanousd, tokens = self.allowance.ceiling(spend.kind, hard=False)
        spend.soft_nanousd, spend.soft_tokens = _ceiling(nanousd), _ceiling(tokens)
        spend.is_told = spend.is_told and spend.has_passed

    @property
    def is_in_use(self) -> bool:
        """Whether a call is running, or something is held for one."""
        held = any(one.nanousd > one.booked_nanousd or one.tokens > one.booked_tokens for one in self.spends)
        return held or self.in_flight > 0

    def is_idle(self, now_s: int, windows: Windows) -> bool:
        """Whether an account made anew would be like this one."""
        if self.in_flight or self.requests.used(now_s) or self.tokens.used(now_s) or self.refused.used(now_s):
            return False
        return all(spend.is_empty or spend.window != windows.name(spend.kind) for spend in self.spends)

    def refused_this_minute(self, now_s: int) -> str:
        """Count a refusal; lets whoever records refusals put a flood of them together."""
        self.refused.used(now_s)
        self.refused.take(now_s, 1)
        return str(self.refused.total)

    # ------------------------------------------------------------ telling

    def remaining(self, now_s: int) -> dict[str, Any]:
        """What is left of each limit that is set."""
        allowance = self.allowance
        told: dict[str, Any] = {}
        if (limit := allowance.requests_per_minute) is not None:
            left = max(0, limit - self.requests_used(now_s))
            told["requests_per_minute"] = {
                "limit": limit,
                "left": left,
                "reset_s": self.requests.reset_s(now_s),
            }
        if (limit := allowance.tokens_per_minute) is not None:
            left = max(0, limit - self.tokens_used(now_s))
            told["tokens_per_minute"] = {"limit": limit, "left": left, "reset_s": self.tokens.reset_s(now_s)}
        if (limit := allowance.concurrency) is not None:
            told["concurrency"] = {"limit": limit, "left": max(0, limit - self.others_in_flight - self.in_flight)}
        budgets: list[dict[str, Any]] = []
        for rule in allowance.budgets:
            spend = next(one for one in self.spends if one.kind == rule.window)
            others_nanousd, others_tokens = self.others_spend(spend, hard=rule.hard)
            nanousd, tokens = spend.nanousd + others_nanousd, spend.tokens + others_tokens
            budget: dict[str, Any] = {"window": spend.window, "resets_at": self.windows.resets_at(rule.window)}
            if not rule.hard:
                nanousd, tokens = spend.booked_nanousd + others_nanousd, spend.booked_tokens + others_tokens
                budget["hard"] = False
                budget["passed"] = (rule.nanousd is not None and nanousd > rule.nanousd) or (
                    rule.tokens is not None and tokens > rule.tokens
                )
            if rule.nanousd is not None:
                budget["limit_nanousd"] = rule.nanousd
                budget["left_nanousd"] = max(0, rule.nanousd - nanousd)
            if rule.tokens is not None:
                budget["limit_tokens"] = rule.tokens
                budget["left_tokens"] = max(0, rule.tokens - tokens)
            budgets.append(budget)
        if budgets:
            told["budgets"] = budgets
        return told

    def requests_used(self, now_s: int) -> int:
        """Requests of this minute."""
        return self.requests.used(now_s)

    def tokens_used(self, now_s: int) -> int:
        """Tokens of this minute."""
        return self.tokens.used(now_s)

    @property
    def others_in_flight(self) -> int:
        """Places that other replicas hold."""
        return 0

    def others_spend(self, _spend: Spend, *, hard: bool) -> tuple[int, int]:
        """(nano-dollars, tokens) that other replicas hold of a window's hard budget, or have booked."""
        return 0, 0


def _ceiling(limit: int | None) -> int:
    return NO_CEILING if limit is None else limit
