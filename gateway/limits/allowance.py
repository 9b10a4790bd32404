"""What each level may use: the room's own, already merged form of the configured limits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from gateway.limits.windows import Window
from gateway.settings import Limits as ConfiguredLimits
from gateway.settings import LimitSet

LevelKind = Literal["tenant", "team", "use_case", "agent", "user", "session", "tool", "model"]
KINDS: tuple[LevelKind, ...] = ("tenant", "team", "use_case", "agent", "user", "session", "tool", "model")

OnUnavailable = Literal["refuse", "allow"]


class BudgetRule(msgspec.Struct, frozen=True, kw_only=True):
    """A budget for one minute, day or month. None: that side is not limited.

    A soft one (`hard` False) refuses nothing: that it was passed is told. `on_unavailable` "allow": where replicas
    can't count together, each counts for itself.
    """

    window: Window
    nanousd: int | None = None
    tokens: int | None = None
    hard: bool = True
    on_unavailable: OnUnavailable = "refuse"


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of one level. None means unlimited; zero means nothing at all."""

    requests_per_minute: int | None = None
    concurrency: int | None = None
    tokens_per_minute: int | None = None
    budgets: tuple[BudgetRule, ...] = ()
    on_unavailable: OnUnavailable = "refuse"  # of all but budgets

    @property
    def limits_anything(self) -> bool:
        """Whether there is anything to count for."""
        rates = (self.requests_per_minute, self.concurrency, self.tokens_per_minute)
        return bool(self.budgets) or any(limit is not None for limit in rates)

    def ceiling(self, window: Window, *, hard: bool = True) -> tuple[int | None, int | None]:
        """The tightest (nano-dollars, tokens) of all hard, or all soft, rules for that window."""
        rules = [rule for rule in self.budgets if rule.window == window and rule.hard == hard]
        money = [rule.nanousd for rule in rules if rule.nanousd is not None]
        tokens = [rule.tokens for rule in rules if rule.tokens is not None]
        return min(money, default=None), min(tokens, default=None)

    def allows_alone(self, window: Window) -> bool:
        """Whether all hard budgets of that window let a replica count for itself."""
        rules = [rule for rule in self.budgets if rule.window == window and rule.hard]
        return all(rule.on_unavailable == "allow" for rule in rules)


UNLIMITED = Allowance()


class AllowanceTable(msgspec.Struct, frozen=True, kw_only=True):
    """Who has which allowance: named entries first, else the default of that kind of level."""

    tenant_default: Allowance = UNLIMITED
    tenants: Mapping[str, Allowance] = MappingProxyType({})
    team_default: Allowance = UNLIMITED
    teams: Mapping[str, Allowance] = MappingProxyType({})
    use_case_default: Allowance = UNLIMITED
    use_cases: Mapping[str, Allowance] = MappingProxyType({})
    agent_default: Allowance = UNLIMITED
    agents: Mapping[str, Allowance] = MappingProxyType({})
    user_default: Allowance = UNLIMITED
    users: Mapping[str, Allowance] = MappingProxyType({})
    session_default: Allowance = UNLIMITED
    sessions: Mapping[str, Allowance] = MappingProxyType({})
    tool_default: Allowance = UNLIMITED
    tools: Mapping[str, Allowance] = MappingProxyType({})
    model_default: Allowance = UNLIMITED
    models: Mapping[str, Allowance] = MappingProxyType({})
    time_zone: str = "UTC"
    """In which days and months begin; an IANA name."""

    def of(self, kind: LevelKind, name: str) -> Allowance:
        """The allowance of one level."""
        named: Mapping[str, Allowance] = getattr(self, f"{kind}s")
        default: Allowance = getattr(self, f"{kind}_default")
        return named.get(name, default)

    def limits(self, kind: LevelKind) -> bool:
        """Whether any level of that kind is limited."""
        named: Mapping[str, Allowance] = getattr(self, f"{kind}s")
        default: Allowance = getattr(self, f"{kind}_default")
        return default.limits_anything or any(one.limits_anything for one in named.values())


def table_of(configured: ConfiguredLimits) -> AllowanceTable:
    """The allowances that the `limits` section of the configuration means."""
    fields: dict[str, Allowance | Mapping[str, Allowance]] = {}
    for kind in KINDS:
        fields[f"{kind}_default"] = _allowance(configured.default_of(kind))
        fields[f"{kind}s"] = {name: _allowance(configured.of(kind, name)) for name in configured.named(kind)}
    return msgspec.structs.replace(AllowanceTable(time_zone=configured.time_zone), **fields)


def _allowance(limits: LimitSet) -> Allowance:
    return Allowance(
        requests_per_minute=limits.requests_per_minute,
        concurrency=limits.concurrency,
        tokens_per_minute=limits.tokens_per_minute,
        budgets=tuple(
            BudgetRule(
                window=budget.window,
                nanousd=budget.nanousd,
                tokens=budget.tokens,
                hard=budget.hard,
                on_unavailable=budget.on_unavailable,
            )
            for budget in limits.budgets or ()
        ),
        on_unavailable=limits.on_unavailable,
    )
