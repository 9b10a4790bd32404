"""Soft budgets: what is told when one is passed. They refuse nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.actions import usd_text
from gateway.limits.account import NO_CEILING, Account, Spend


class SoftBudget(NamedTuple):
    """A soft budget that was passed. None: that side has none."""

    tenant: str
    level: str
    window: str
    limit_nanousd: int | None
    limit_tokens: int | None
    nanousd: int  # booked so far in the window, by all replicas as far as is known
    tokens: int

    @classmethod
    def of(cls, account: Account, spend: Spend) -> SoftBudget:
        """That of a window of a level."""
        others_nanousd, others_tokens = account.others_spend(spend, hard=False)
        return cls(
            account.tenant,
            account.level,
            spend.window,
            None if spend.soft_nanousd == NO_CEILING else spend.soft_nanousd,
            None if spend.soft_tokens == NO_CEILING else spend.soft_tokens,
            spend.booked_nanousd + others_nanousd,
            spend.booked_tokens + others_tokens,
        )

    @property
    def sentence(self) -> str:
        """For people: what was passed, by whom."""
        sides = []
        if self.limit_nanousd is not None and self.nanousd > self.limit_nanousd:
            sides.append(f"{usd_text(self.nanousd)} USD of {usd_text(self.limit_nanousd)} USD")
        if self.limit_tokens is not None and self.tokens > self.limit_tokens:
            sides.append(f"{self.tokens} tokens of {self.limit_tokens} tokens")
        return f"{self.level} has passed its soft budget of {self.window}: {' and '.join(sides)}; nothing is refused."


TellsSoftBudget = Callable[[SoftBudget], None]


def tell_nobody(_passed: SoftBudget) -> None:
    """Where nobody listens."""
