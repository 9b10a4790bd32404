"""Limits: how often, how many at once, how many tokens and how much money, at eight levels at once.

Owns the counters of rates, concurrency and budgets, and the one table `spend` that lets a restart forget nothing.
Never reads a policy and never talks to a provider. In memory no call waits; replicas that share limits through Redis
wait for it only where what they were granted ahead does not suffice.

Fails closed: a call whose upper bound does not fit into every budget of every level is refused before anything
is spent, a model without a known price is refused under a money budget, and a cost that is only estimated is
booked in full. What a call may cost is held from `reserve` until `settle`; nothing expires by itself.
"""

from gateway.limits.allowance import Allowance, AllowanceTable, BudgetRule, table_of
from gateway.limits.bounds import input_bound, output_bound
from gateway.limits.interface import Admission, Level, Limits, Persist, Rates, SpendRow
from gateway.limits.memory import MemoryLimits
from gateway.limits.overrun import Overrun
from gateway.limits.soft import SoftBudget
from gateway.limits.spend import read_spend
from gateway.limits.windows import Windows, windows_at

__all__ = [
    "Admission",
    "Allowance",
    "AllowanceTable",
    "BudgetRule",
    "Level",
    "Limits",
    "MemoryLimits",
    "Overrun",
    "Persist",
    "Rates",
    "SoftBudget",
    "SpendRow",
    "Windows",
    "input_bound",
    "output_bound",
    "read_spend",
    "table_of",
    "windows_at",
]
