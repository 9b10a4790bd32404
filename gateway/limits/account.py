"""The counters of one level: what a single agent or user has in use, this minute, today and this month."""

from __future__ import annotations

from typing import Any

from gateway.actions import usd_text
from gateway.errors import Refusal
from gateway.limits.allowance import Allowance
from gateway.limits.minute import SlidingMinute
from gateway.limits.windows import Windows

_NO_CEILING = 1 << 80
"""Stands for "not limited", so that the hot path compares integers and nothing else."""


class Spend:
    """Used in one window of one level: booked and held together."""

    __slots__ = ("nanousd", "tokens", "window")

    def __init__(self, window: str) -> None:
        self.window = window
        self.nanousd = 0
        self.tokens = 0


class Account:
    """One level of one tenant. Only `MemoryLimits` touches it, from one thread."""

    __slots__ = (
        "allowance",
        "concurrency",
        "day",
        "day_nanousd",
        "day_tokens",
        "in_flight",
        "level",
        "minute_requests",
        "minute_tokens",
        "money_is_limited",
        "month",
        "month_nanousd",
        "month_tokens",
        "refused",
        "requests",
        "tenant",
        "tokens",
    )

    def __init__(self, tenant: str, level: str, allowance: Allowance, windows: Windows) -> None:
        self.tenant = tenant
        self.level = level
        self.in_flight = 0
        self.refused = SlidingMinute()
        self.requests = SlidingMinute()
        self.tokens = SlidingMinute()
        self.day = Spend(windows.day)
        self.month = Spend(windows.month)
        self.allow(allowance)

    def allow(self, allowance: Allowance) -> None:
        """Put an allowance in force; what is used stays used."""
        self.allowance = allowance
        self.concurrency = _NO_CEILING if allowance.concurrency is None else allowance.concurrency
        self.minute_requests = _ceiling(allowance.requests_per_minute)
        self.minute_tokens = _ceiling(allowance.tokens_per_minute)
        day_nanousd, day_tokens = allowance.ceiling("day")
        month_nanousd, month_tokens = allowance.ceiling("month")
        self.money_is_limited = day_nanousd is not None or month_nanousd is not None
        self.day_nanousd = _ceiling(day_nanousd)
        self.day_tokens = _ceiling(day_tokens)
        self.month_nanousd = _ceiling(month_nanousd)
        self.month_tokens = _ceiling(month_tokens)

    def turn(self, windows: Windows) -> None:
        """Begin new windows. Reservations keep the `Spend` they were taken from, so a late one lands there."""
        if self.day.window != windows.day:
            self.day = Spend(windows.day)
        if self.month.window != windows.month:
            self.month = Spend(windows.month)

    # ------------------------------------------------------------ refusing; never on the happy path

    def refuse_request(self, now_s: int) -> Refusal:
        """Why this level takes no further request now."""
        if self.in_flight >= self.concurrency:
            limit = "concurrency"
            wait_s = 1  # a place is free when a call ends, which nobody can foretell
            message = f"{self.level} has {self.in_flight} calls running, as many as it may; wait for one to end."
        else:
            limit = "requests_per_minute"
            wait_s = self.requests.wait_s(now_s, 1, self.minute_requests)
            message = (
                f"{self.level} may make {self.minute_requests} requests per minute and has made them; "
                f"try again in {wait_s} s."
            )
        return Refusal("rate_limited", message, retry_after_s=wait_s, detail=self._detail(limit, now_s))

    def refuse_tokens(self, now_s: int, tokens: int) -> Refusal:
        """Why this many tokens do not fit into this minute."""
        limit = self.minute_tokens
        if tokens > limit:
            return Refusal(
                "budget_exhausted",
                f"This call may take {tokens} tokens and {self.level} has {limit} per minute, so it can never "
                "pass; ask for fewer output tokens (max_tokens), shorten the prompt, or have the limit raised.",
                detail=self._detail("tokens_per_minute", now_s),
            )
        wait_s = self.tokens.wait_s(now_s, tokens, limit)
        return Refusal(
            "rate_limited",
            f"This call may take {tokens} tokens and {self.level} has {limit - self.tokens.total} of {limit} "
            f"left this minute; try again in {wait_s} s or ask for fewer output tokens (max_tokens).",
            retry_after_s=wait_s,
            detail=self._detail("tokens_per_minute", now_s),
        )

    def refuse_budget(self, nanousd: int, tokens: int, windows: Windows) -> Refusal | None:
        """Why this much does not fit into a budget; None if it does after all (it takes nothing of it)."""
        for name, resets_at, spend, ceiling_nanousd, ceiling_tokens in (
            ("day", windows.day_resets_at, self.day, self.day_nanousd, self.day_tokens),
            ("month", windows.month_resets_at, self.month, self.month_nanousd, self.month_tokens),
        ):
            if nanousd and spend.nanousd + nanousd > ceiling_nanousd:
                left = f"{usd_text(max(0, ceiling_nanousd - spend.nanousd))} USD"
                need, whole = f"{usd_text(nanousd)} USD", f"{usd_text(ceiling_nanousd)} USD"
            elif tokens and spend.tokens + tokens > ceiling_tokens:
                left = f"{max(0, ceiling_tokens - spend.tokens)} tokens"
                need, whole = f"{tokens} tokens", f"{ceiling_tokens} tokens"
            else:
                continue
            return Refusal(
                "budget_exhausted",
                f"This call may cost {need} and {self.level} has {left} of {whole} left this {name} (UTC); "
                f"wait until {resets_at}, ask for less (max_tokens), or have the budget raised.",
                detail={
                    "limit": "budget",
                    "level": self.level,
                    "window": spend.window,
                    "left": left,
                    "needed": need,
                    "resets_at": resets_at,
                },
            )
        return None

    def refuse_unpriced(self, alias: str) -> Refusal:
        """Why a model without a price cannot be used by a level that has a money budget."""
        return Refusal(
            "budget_exhausted",
            f"No price of model {alias} is known, so it cannot be held against the money budget of "
            f"{self.level}; give the model a price in the configuration.",
            detail={"limit": "budget", "level": self.level, "model": alias},
        )

    def _detail(self, limit: str, now_s: int) -> dict[str, str]:
        """`refused_this_minute` lets whoever records refusals put a flood of them together."""
        self.refused.used(now_s)
        self.refused.take(now_s, 1)
        return {"limit": limit, "level": self.level, "refused_this_minute": str(self.refused.total)}

    # ------------------------------------------------------------ telling

    def remaining(self, now_s: int, windows: Windows) -> dict[str, Any]:
        """What is left of each limit that is set."""
        allowance = self.allowance
        told: dict[str, Any] = {}
        if (limit := allowance.requests_per_minute) is not None:
            left = max(0, limit - self.requests.used(now_s))
            told["requests_per_minute"] = {
                "limit": limit,
                "left": left,
                "reset_s": self.requests.reset_s(now_s),
            }
        if (limit := allowance.tokens_per_minute) is not None:
            left = max(0, limit - self.tokens.used(now_s))
            told["tokens_per_minute"] = {"limit": limit, "left": left, "reset_s": self.tokens.reset_s(now_s)}
        if (limit := allowance.concurrency) is not None:
            told["concurrency"] = {"limit": limit, "left": max(0, limit - self.in_flight)}
        budgets: list[dict[str, Any]] = []
        for rule in allowance.budgets:
            daily = rule.window == "day"
            spend = self.day if daily else self.month
            budget: dict[str, Any] = {
                "window": spend.window,
                "resets_at": windows.day_resets_at if daily else windows.month_resets_at,
            }
            if rule.nanousd is not None:
                budget["limit_nanousd"] = rule.nanousd
                budget["left_nanousd"] = max(0, rule.nanousd - spend.nanousd)
            if rule.tokens is not None:
                budget["limit_tokens"] = rule.tokens
                budget["left_tokens"] = max(0, rule.tokens - spend.tokens)
            budgets.append(budget)
        if budgets:
            told["budgets"] = budgets
        return told


def no_ceiling(ceiling: int) -> bool:
    """Whether it stands for "not limited"."""
    return ceiling >= _NO_CEILING


def _ceiling(limit: int | None) -> int:
    return _NO_CEILING if limit is None else limit
