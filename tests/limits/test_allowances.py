"""What the configuration's `limits` section means."""

from __future__ import annotations

from gateway.limits import Allowance, BudgetRule, table_of
from gateway.settings import Limits


def test_named_entries_replace_the_given_fields_of_the_default() -> None:
    configured = Limits.model_validate(
        {
            "default": {"requests_per_minute": 600, "concurrency": 4, "budgets": [{"window": "day", "usd": "10"}]},
            "agents": {"reader": {"concurrency": 9}, "poor": {"budgets": [{"window": "month", "tokens": 5}]}},
            "user_default": {"tokens_per_minute": 7},
            "users": {"ada": {"requests_per_minute": 1}},
        }
    )
    table = table_of(configured)
    ten_dollars = BudgetRule(window="day", nanousd=10_000_000_000)
    assert table.of("agent", "anyone") == Allowance(requests_per_minute=600, concurrency=4, budgets=(ten_dollars,))
    assert table.of("agent", "reader") == Allowance(requests_per_minute=600, concurrency=9, budgets=(ten_dollars,))
    assert table.of("agent", "poor") == Allowance(
        requests_per_minute=600, concurrency=4, budgets=(BudgetRule(window="month", tokens=5),)
    )
    assert table.of("user", "bob") == Allowance(tokens_per_minute=7)
    assert table.of("user", "ada") == Allowance(requests_per_minute=1, tokens_per_minute=7)


def test_several_rules_for_a_window_make_the_tightest_of_each() -> None:
    allowance = Allowance(
        budgets=(
            BudgetRule(window="day", nanousd=5),
            BudgetRule(window="day", nanousd=3, tokens=9),
            BudgetRule(window="month", tokens=1),
        )
    )
    assert allowance.ceiling("day") == (3, 9)
    assert allowance.ceiling("month") == (None, 1)
