"""UTC days and months: their names in table `spend`, and when they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

NS_PER_S = 1_000_000_000


class Windows(msgspec.Struct, frozen=True):
    """The windows a moment lies in. Ends are nanoseconds since the epoch, exclusive."""

    day: str  # "day:2026-11-22"
    month: str  # "month:2026-11"
    day_end_ns: int
    month_end_ns: int
    day_resets_at: str  # for people, e.g. 2026-11-23T00:00:00Z
    month_resets_at: str


def windows_at(now_ns: int) -> Windows:
    """The UTC day and month of a moment given in nanoseconds since the epoch."""
    now = datetime.fromtimestamp(now_ns // NS_PER_S, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = midnight + timedelta(days=1)
    # Day 1 plus 31 days is always in the following month.
    next_month = (midnight.replace(day=1) + timedelta(days=31)).replace(day=1)
    return Windows(
        day=f"day:{now:%Y-%m-%d}",
        month=f"month:{now:%Y-%m}",
        day_end_ns=int(tomorrow.timestamp()) * NS_PER_S,
        month_end_ns=int(next_month.timestamp()) * NS_PER_S,
        day_resets_at=f"{tomorrow:%Y-%m-%dT%H:%M:%SZ}",
        month_resets_at=f"{next_month:%Y-%m-%dT%H:%M:%SZ}",
    )
