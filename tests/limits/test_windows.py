"""Minutes, days and months of any time zone: their names, and when they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.limits import Allowance, AllowanceTable, BudgetRule, MemoryLimits, Windows, windows_at
from gateway.settings import Limits
from tests.limits.house import MODEL, act, cost, rows, spend_table

NS = 1_000_000_000
HOUR_NS = 3_600 * NS

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Cairo"]


def at(text: str, zone: str) -> Windows:
    """The windows at a moment of UTC, e.g. 2026-03-29T00:30."""
    return windows_at(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS, zone)


def test_names_in_utc_stay_as_they_were_and_others_name_their_zone() -> None:
    utc, berlin = at("2026-11-22T23:30", "UTC"), at("2026-11-22T23:30", "Europe/Berlin")
    assert (utc.day, utc.month, utc.day_resets_at) == ("day:2026-11-22", "month:2026-11", "2026-11-23T00:00:00Z")
    assert (berlin.day, berlin.month) == ("day:2026-11-23@Europe/Berlin", "month:2026-11@Europe/Berlin")
    assert berlin.day_resets_at == "2026-11-24T00:00:00+01:00"
    assert utc.minute == berlin.minute == "minute:2026-11-22T23:30"


@pytest.mark.parametrize(
    ("moment", "zone", "hours"),
    [
        ("2026-03-29T12:00", "Europe/Berlin", 23),  # the clock jumps from 02:00 to 03:00
        ("2026-10-25T12:00", "Europe/Berlin", 25),
        ("2026-04-24T12:00", "Africa/Cairo", 23),  # it jumps over midnight, from 00:00 to 01:00
        ("2026-10-29T12:00", "Africa/Cairo", 25),  # it goes back at midnight, so that an hour before it comes twice
        ("2026-06-01T12:00", "Europe/Berlin", 24),
    ],
)
def test_a_day_has_as_many_hours_as_its_zone_gives_it(moment: str, zone: str, hours: int) -> None:
    windows = at(moment, zone)
    began = windows_at(windows.day_end_ns - hours * HOUR_NS, zone)
    assert began.day == windows.day
    assert windows_at(windows.day_end_ns - hours * HOUR_NS - 1, zone).day != windows.day


def test_an_hour_that_comes_twice_is_one_day_and_two_hours_of_minutes() -> None:
    first, second = at("2026-10-25T00:30", "Europe/Berlin"), at("2026-10-25T01:30", "Europe/Berlin")  # both 02:30
    assert first.day == second.day
    assert first.minute != second.minute


def test_a_day_that_a_zone_left_out_is_no_window() -> None:
    last = at("2011-12-30T09:00", "Pacific/Apia")  # the 29th; Samoa went on with the 31st
    assert last.day == "day:2011-12-29@Pacific/Apia"
    assert windows_at(last.day_end_ns, "Pacific/Apia").day == "day:2011-12-31@Pacific/Apia"


@given(
    moment=st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31)),  # noqa: DTZ001 - of UTC, below
    zone=st.sampled_from(ZONES),
)
def test_a_window_ends_where_the_next_one_begins(moment: datetime, zone: str) -> None:
    now_ns = int(moment.replace(tzinfo=UTC).timestamp()) * NS
    windows = windows_at(now_ns, zone)
    assert now_ns < windows.minute_end_ns <= windows.day_end_ns <= windows.month_end_ns
    for kind, end_ns in (
        ("minute", windows.minute_end_ns),
        ("day", windows.day_end_ns),
        ("month", windows.month_end_ns),
    ):
        before, after = windows_at(end_ns - 1, zone), windows_at(end_ns, zone)
        assert getattr(before, kind) == getattr(windows, kind) != getattr(after, kind)
    local = datetime.fromtimestamp(now_ns // NS, ZoneInfo(zone))
    assert windows.day.startswith(f"day:{local:%Y-%m-%d}")
    resets = datetime.fromisoformat(windows.day_resets_at)
    assert resets == datetime.fromtimestamp(windows.day_end_ns // NS, UTC)
    assert resets - local < timedelta(hours=26)


async def test_a_budget_of_a_zone_begins_anew_at_its_midnight_and_is_booked_under_its_name(clock: ManualClock) -> None:
    allowance = Allowance(budgets=(BudgetRule(window="day", nanousd=10_000_000),))
    limits = MemoryLimits(clock, AllowanceTable(agent_default=allowance, time_zone="Asia/Tokyo"))
    disk = spend_table()
    limits.settle(await limits.reserve(act(max_tokens=1_000), MODEL), cost(0, 1_000))(disk)
    assert rows(disk) == {  # noon of the 22nd in UTC
        ("default", "agent:reader", "day:2026-11-22@Asia/Tokyo"): (2_000_000, 1_000),
        ("default", "agent:reader", "month:2026-11@Asia/Tokyo"): (2_000_000, 1_000),
    }
    (left,) = limits.remaining("reader")["agent:reader"]["budgets"]
    assert (left["left_nanousd"], left["resets_at"]) == (8_000_000, "2026-11-23T00:00:00+09:00")
    clock.advance(3 * 3_600)
    (left,) = limits.remaining("reader")["agent:reader"]["budgets"]
    assert (left["left_nanousd"], left["window"]) == (10_000_000, "day:2026-11-23@Asia/Tokyo")


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "", "europe"])
def test_a_zone_that_does_not_exist_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        Limits.model_validate({"time_zone": name})
