"""Days and months of a time zone: every moment lies in one of each, and its end begins the next."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, read_spend, table_of, windows_at
from gateway.settings import Limits
from tests.limits.footings import MakeLimits
from tests.limits.house import MODEL, act, cost, rows, spend_table

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # turns its clock at midnight
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",
)
HOUR_NS = 3_600 * 10**9


def ns(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[misc, arg-type]


@given(st.integers(ns(2020, 1, 1), ns(2035, 1, 1)), st.sampled_from(ZONES))
def test_a_window_holds_until_its_end_and_the_next_begins_there(now_ns: int, zone: str) -> None:
    windows = windows_at(now_ns, zone)
    for kind, end_ns in (
        ("minute", windows.minute_end_ns),
        ("day", windows.day_end_ns),
        ("month", windows.month_end_ns),
    ):
        name = windows.name(kind)  # type: ignore[arg-type]
        assert now_ns < end_ns
        assert windows_at(end_ns - 1, zone).name(kind) == name  # type: ignore[arg-type]
        assert windows_at(end_ns, zone).name(kind) > name  # type: ignore[arg-type]
        assert name.startswith(f"{kind}:")


def test_names_in_utc_are_as_they_were_and_others_name_their_zone() -> None:
    noon = ns(2026, 11, 22, 12)
    utc, berlin = windows_at(noon), windows_at(noon, "Europe/Berlin")
    assert (utc.minute, utc.day, utc.month) == ("minute:2026-11-22T12:00", "day:2026-11-22", "month:2026-11")
    assert (berlin.minute, berlin.day) == ("minute:2026-11-22T12:00", "day:2026-11-22@Europe/Berlin")
    assert berlin.month == "month:2026-11@Europe/Berlin"
    assert (utc.day_resets_at, berlin.day_resets_at) == ("2026-11-23T00:00:00Z", "2026-11-23T00:00:00+01:00")


@pytest.mark.parametrize(
    ("zone", "begins", "hours"),
    [
        ("Europe/Berlin", ns(2026, 3, 28, 23), 23),
        ("Europe/Berlin", ns(2026, 10, 24, 22), 25),
        ("America/Havana", ns(2026, 3, 8, 5), 23),  # its midnight is jumped over
        ("America/Havana", ns(2026, 11, 1, 4), 25),  # its midnight comes twice
        ("Australia/Lord_Howe", ns(2026, 4, 4, 13), 24.5),
    ],
)
def test_a_day_of_summer_time_has_its_own_length(zone: str, begins: int, hours: float) -> None:
    windows = windows_at(begins, zone)
    assert windows.day != windows_at(begins - 1, zone).day
    assert windows.day_end_ns - begins == hours * HOUR_NS


async def test_a_budget_of_a_zone_begins_at_its_midnight_and_says_so(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    disk = spend_table()
    allowance = Allowance(budgets=(BudgetRule(window="day", nanousd=10_000_000),))
    table = AllowanceTable(agent_default=allowance, time_zone="America/New_York")
    limits = await make_limits(clock, table)
    limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), cost(0, 4_500))(disk)
    clock.advance(12 * 3_600)  # midnight in UTC
    with pytest.raises(Refusal, match=r"left this day \(America/New_York\); wait until 2026-11-23T00:00:00-05:00"):
        await limits.reserve(act(max_tokens=4_000), MODEL)
    limits = await make_limits.again(clock, table, disk)
    with pytest.raises(Refusal):
        await limits.reserve(act(max_tokens=4_000), MODEL)
    clock.advance(5 * 3_600)
    await limits.reserve(act(max_tokens=4_000), MODEL)
    assert {window for _, _, window in rows(disk)} == {
        "day:2026-11-22@America/New_York",
        "month:2026-11@America/New_York",
    }


async def test_a_minutes_budget_begins_anew_and_leaves_few_rows(make_limits: MakeLimits, clock: ManualClock) -> None:
    disk = spend_table()
    allowance = Allowance(budgets=(BudgetRule(window="minute", nanousd=10_000_000),))
    limits = await make_limits(clock, AllowanceTable(agent_default=allowance))
    for minute in range(5):
        limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), cost(0, 4_500))(disk)
        with pytest.raises(Refusal, match=rf"left this minute \(UTC\); wait until 2026-11-22T12:0{minute + 1}:00Z"):
            await limits.reserve(act(max_tokens=4_000), MODEL)
        clock.advance(60)
    minutes = [window for _, _, window in rows(disk) if window.startswith("minute:")]
    assert minutes == ["minute:2026-11-22T12:04"]
    assert rows(disk)["default", "agent:reader", "day:2026-11-22"] == (45_000_000, 22_500)
    assert len(read_spend(disk, windows_at(clock.now_ns() - 1))) == 3


def test_a_zone_that_is_none_is_told() -> None:
    assert table_of(Limits(time_zone="Asia/Kathmandu")).time_zone == "Asia/Kathmandu"
    for name in ("Mars/Olympus", "", "../etc/passwd"):
        with pytest.raises(ValidationError, match="give an IANA name such as Europe/Berlin"):
            Limits(time_zone=name)


def test_the_other_levels_are_configured_like_agents_and_users() -> None:
    configured = Limits.model_validate(
        {
            "tenant_default": {"concurrency": 100},
            "teams": {
                "sales": {"budgets": [{"window": "month", "usd": "5", "hard": False}, {"window": "month", "usd": "9"}]}
            },
            "session_default": {"requests_per_minute": 30, "on_unavailable": "allow"},
            "tools": {"ledger__transfer": {"requests_per_minute": 2}},
            "model_default": {"tokens_per_minute": 5},
            "models": {"big": {"concurrency": 3}},
        }
    )
    table = table_of(configured)
    assert table.of("tenant", "default") == Allowance(concurrency=100)
    assert table.of("team", "sales").ceiling("month") == (9_000_000_000, None)
    assert table.of("team", "sales").ceiling("month", hard=False) == (5_000_000_000, None)
    assert table.of("session", "any") == Allowance(requests_per_minute=30, on_unavailable="allow")
    assert table.of("tool", "ledger__transfer") == Allowance(requests_per_minute=2)
    assert table.of("model", "big") == Allowance(concurrency=3, tokens_per_minute=5)
    assert not table.of("use_case", "any").limits_anything
    assert (table.limits("tool"), table.limits("use_case")) == (True, False)
