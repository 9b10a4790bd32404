"""What an agent or a user may use: the room's own, already merged form of the configured limits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from gateway.settings import Limits as ConfiguredLimits
from gateway.settings import LimitSet

Window = Literal["day", "month"]


class BudgetRule(msgspec.Struct, frozen=True, kw_only=True):
    """A hard budget for one UTC day or month. None: that side is not limited."""

    window: Window
    nanousd: int | None = None
    tokens: int | None = None


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of one level. None means unlimited; zero means nothing at all."""

    requests_per_minute: int | None = None
    concurrency: int | None = None
    tokens_per_minute: int | None = None
    budgets: tuple[BudgetRule, ...] = ()

    def ceiling(self, window: Window) -> tuple[int | None, int | None]:
        """The tightest (nano-dollars, tokens) of all rules for that window."""
        money = [r.nanousd for r in self.budgets if r.window == window and r.nanousd is not None]
        tokens = [r.tokens for r in self.budgets if r.window == window and r.tokens is not None]
        return min(money, default=None), min(tokens, default=None)


UNLIMITED = Allowance()


class AllowanceTable(msgspec.Struct, frozen=True, kw_only=True):
    """Who has which allowance: named entries first, else the default of that kind of level."""

    agent_default: Allowance = UNLIMITED
    agents: Mapping[str, Allowance] = MappingProxyType({})
    user_default: Allowance = UNLIMITED
    users: Mapping[str, Allowance] = MappingProxyType({})

    def of_agent(self, agent_id: str) -> Allowance:
        return self.agents.get(agent_id, self.agent_default)

    def of_user(self, user: str) -> Allowance:
        return self.users.get(user, self.user_default)


def table_of(configured: ConfiguredLimits) -> AllowanceTable:
    """The allowances that the `limits` section of the configuration means."""
    return AllowanceTable(
        agent_default=_allowance(configured.default),
        agents={agent_id: _allowance(configured.of_agent(agent_id)) for agent_id in configured.agents},
        user_default=_allowance(configured.user_default),
        users={user: _allowance(configured.of_user(user)) for user in configured.users},
    )


def _allowance(limits: LimitSet) -> Allowance:
    return Allowance(
        requests_per_minute=limits.requests_per_minute,
        concurrency=limits.concurrency,
        tokens_per_minute=limits.tokens_per_minute,
        budgets=tuple(
            BudgetRule(window=budget.window, nanousd=budget.nanousd, tokens=budget.tokens)
            for budget in limits.budgets or ()
        ),
    )
