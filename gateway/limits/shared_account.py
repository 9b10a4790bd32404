"""An account of which a replica has a part: its ceilings are what it was granted, not what the limit is."""

from __future__ import annotations

from typing import Any

from gateway.actions import usd_text
from gateway.errors import Refusal
from gateway.limits.account import Account, Spend, no_ceiling
from gateway.limits.allowance import Allowance
from gateway.limits.leases import SharedMinute
from gateway.limits.windows import Windows

GRANTS = ("concurrency", "day_nanousd", "day_tokens", "month_nanousd", "month_tokens")
MINUTES = ("minute_requests", "minute_tokens")


class SharedAccount(Account):
    """One level of one tenant, as one replica has it. Only `RedisLimits` touches it."""

    __slots__ = ("active", "limits", "others")

    requests: SharedMinute  # type: ignore[assignment]
    tokens: SharedMinute  # type: ignore[assignment]

    def __init__(self, tenant: str, level: str, allowance: Allowance, windows: Windows) -> None:
        self.limits: dict[str, int | None] = {}
        self.others: dict[str, int] = {}  # what the other replicas hold, when last told
        self.active = False  # used since the last tick
        super().__init__(tenant, level, allowance, windows)
        self.requests, self.tokens = SharedMinute(), SharedMinute()
        self.allow(allowance)

    def allow(self, allowance: Allowance) -> None:
        """See `Account.allow`. What is granted stays granted; a limit that is new has to be asked for."""
        before = {name: getattr(self, name, 0) for name in GRANTS}
        limited_before = {name for name, limit in self.limits.items() if limit is not None}
        super().allow(allowance)
        self.limits = {name: None if no_ceiling(getattr(self, name)) else getattr(self, name) for name in GRANTS}
        self.limits |= {name: None if no_ceiling(getattr(self, name)) else getattr(self, name) for name in MINUTES}
        for name in GRANTS:
            if self.limits[name] is not None:
                setattr(self, name, before[name] if name in limited_before else 0)
        for minute, name in ((self.requests, MINUTES[0]), (self.tokens, MINUTES[1])):
            if isinstance(minute, SharedMinute):
                minute.limited(getattr(self, name))

    def turn(self, windows: Windows) -> None:
        """See `Account.turn`. A new window has to be asked for."""
        for name, current, window in (("day", self.day, windows.day), ("month", self.month, windows.month)):
            if current.window != window:
                setattr(self, name, Spend(window))
                for counter in (f"{name}_nanousd", f"{name}_tokens"):
                    self.others.pop(counter, None)
                    if self.limits[counter] is not None:
                        setattr(self, counter, 0)

    def window_of(self, counter: str) -> str:
        """The window that a counter belongs to; '' for places, which have none."""
        if counter == "concurrency":
            return ""
        return self.day.window if counter.startswith("day") else self.month.window

    def used(self, counter: str) -> int:
        """What this replica has booked and holds."""
        if counter == "concurrency":
            return self.in_flight
        spend = self.day if counter.startswith("day") else self.month
        return spend.nanousd if counter.endswith("nanousd") else spend.tokens

    def left(self, counter: str) -> int:
        """What is left of a limit for everybody, as far as this replica knows."""
        return max(0, (self.limits[counter] or 0) - self.others.get(counter, 0) - self.used(counter))

    # ------------------------------------------------------------ refusing

    def refuse(self, counter: str, needed: int, wait_s: int, now_s: int, windows: Windows) -> Refusal:
        """Why there is no room in a counter that all replicas share."""
        limit = self.limits[counter] or 0
        if counter == "concurrency":
            running = self.others.get(counter, 0) + self.in_flight
            message = f"{self.level} has {running} calls running, as many as it may; wait for one to end."
            return Refusal("rate_limited", message, retry_after_s=1, detail=self._detail("concurrency", now_s))
        if counter == "minute_requests":
            message = f"{self.level} may make {limit} requests per minute and has made them; try again in {wait_s} s."
            return Refusal(
                "rate_limited", message, retry_after_s=wait_s, detail=self._detail("requests_per_minute", now_s)
            )
        if counter == "minute_tokens":
            if needed > limit:
                return super().refuse_tokens(now_s, needed)
            left = max(0, limit - self.tokens.total_used(now_s))
            message = (
                f"This call may take {needed} tokens and {self.level} has {left} of {limit} left this minute; try "
                f"again in {wait_s} s or ask for fewer output tokens (max_tokens)."
            )
            detail = self._detail("tokens_per_minute", now_s)
            return Refusal("rate_limited", message, retry_after_s=wait_s, detail=detail)
        return self._refuse_budget(counter, needed, windows)

    def _refuse_budget(self, counter: str, needed: int, windows: Windows) -> Refusal:
        name, _, kind = counter.partition("_")
        resets_at = windows.day_resets_at if name == "day" else windows.month_resets_at
        amounts = (self.left(counter), needed, self.limits[counter] or 0)
        left, need, whole = (f"{usd_text(one)} USD" if kind == "nanousd" else f"{one} tokens" for one in amounts)
        return Refusal(
            "budget_exhausted",
            f"This call may cost {need} and {self.level} has {left} of {whole} left this {name} (UTC); "
            f"wait until {resets_at}, ask for less (max_tokens), or have the budget raised.",
            detail={
                "limit": "budget",
                "level": self.level,
                "window": self.window_of(counter),
                "left": left,
                "needed": need,
                "resets_at": resets_at,
            },
        )

    # ------------------------------------------------------------ telling

    def remaining(self, now_s: int, windows: Windows) -> dict[str, Any]:
        """See `Account.remaining`: of what all replicas share, as far as this one knows."""
        told = super().remaining(now_s, windows)
        for name, minute in (("requests_per_minute", self.requests), ("tokens_per_minute", self.tokens)):
            if name in told:
                told[name]["left"] = max(0, told[name]["limit"] - minute.total_used(now_s))
        if "concurrency" in told:
            told["concurrency"]["left"] = self.left("concurrency")
        for budget in told.get("budgets", ()):
            name = "day" if budget["window"].startswith("day") else "month"
            for kind in ("nanousd", "tokens"):
                if f"left_{kind}" in budget:
                    others = self.others.get(f"{name}_{kind}", 0)
                    budget[f"left_{kind}"] = max(0, budget[f"left_{kind}"] - others)
        return told
